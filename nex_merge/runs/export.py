"""Write a variant as a checkpoint, and prove that it holds the tensors that were scored and answers as it did."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM

from nex_merge.runs import files
from nex_merge.setup.config import GenerationConfig
from nex_merge.errors import InputError, RunError
from nex_merge.generation import end_tokens, generate
from nex_merge.runs.leaderboard import read_rows
from nex_merge.merging import digest, generation_config, tensor_digest
from nex_merge.runs.remerge import Rebuilder
from nex_merge.records import MergeRecipe, TrialResult

IDENTITY = "nex_merge.json"


def export_trial(run: Path, trial: str | None, out: Path) -> Iterator[str]:
    """Export a trial (the best merge unless named) to `out`; what was done and shown, line by line.

    `out` appears whole, by rename, only once everything is checked. Raises InputError where there is nothing to export
    or `out` is in use, RunError where the checkpoint would not be the variant that was scored.
    """
    told, out = out, out.resolve()
    result = choose(run, files.read_results(run), trial)
    if trial is None and (above := _above(run, result.trial)):
        yield f"note: {above} above trial {result.trial}, the best merge; see nex-merge leaderboard {run}"
    # The figures to tell are those of the leaderboard, which may have been scored again since.
    result = replace(result, score=files.read_scores(run).get(result.same_as or result.trial, result.score))
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"--out: {out} exists and is not empty; a new folder would do")
    rebuilder = Rebuilder(run)
    recipe = rebuilder.load(result)
    yield f"trial {result.trial}: merged again, the same tensors as scored (sha256 {str(result.weights_sha256)[:16]})"
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    _write(rebuilder, result, recipe, partial)
    found = checkpoint_digest(partial)
    if found != result.weights_sha256:
        raise RunError(
            f"{partial}: its tensors (sha256 {found[:16]}) are not those that were scored; it is left to look at"
        )
    yield f"{told}: read back from disk, every tensor equal to the merged one, bit for bit"
    yield _check_answer(rebuilder, result, partial, told)
    if out.exists():
        out.rmdir()
    partial.replace(out)
    nex = result.score.nex if result.score is not None else None
    yield f"done: {told}" + ("" if nex is None else f" (nex {nex:.4f})")


def choose(run: Path, results: list[TrialResult], trial: str | None) -> TrialResult:
    """The trial asked for, or the sound merge that ranks first on the run's leaderboard."""
    if trial is not None:
        result = files.find_trial(results, trial)
        if result.state == "failed":
            raise InputError(f"trial {result.trial} failed ({result.reason}); there is nothing to export")
        return result
    merges = [row["trial"] for row in read_rows(run) if row["kind"] == "merge" and row["state"] == "complete"]
    if not merges:
        raise InputError("no merge of this run is sound, so there is none to export; --trial takes any other")
    return files.find_trial(results, merges[0])


def _above(run: Path, trial: str) -> str:
    """Which of base and parents rank above a trial, for a sentence; empty where none does."""
    ranked = [row for row in read_rows(run) if row["rank"] is not None]
    place = next((row["rank"] for row in ranked if row["trial"] == trial), None)
    names = [row["trial"] for row in ranked if row["kind"] != "merge" and place is not None and row["rank"] < place]
    if not names:
        return ""
    return f"{names[0]} ranks" if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]} rank"


def _write(rebuilder: Rebuilder, result: TrialResult, recipe: MergeRecipe, folder: Path) -> None:
    model = rebuilder.merger.model
    out_dtype = getattr(torch, rebuilder.out_dtype)
    # Exact: the resident tensors were rounded to this dtype before they were widened.
    state = {name: parameter.detach().to("cpu", out_dtype) for name, parameter in model.named_parameters()}
    shell = type(model)._from_config(rebuilder.merger.config_of(recipe), dtype=out_dtype)
    shell.load_state_dict(state, strict=False)
    shell.tie_weights()
    donor = rebuilder.family.folders[rebuilder.merger.member_of(recipe)]
    shell.generation_config = generation_config(donor)
    shell.generation_config.eos_token_id = sorted(end_tokens(model, rebuilder.tokenizer))
    shell.save_pretrained(folder)
    rebuilder.tokenizer.save_pretrained(folder)
    text = (files.trial_folder(rebuilder.run, result.trial) / files.RECIPE).read_text(encoding="utf-8")
    (folder / "mergekit_config.yml").write_text(text, encoding="utf-8")
    identity = {"weights_sha256": result.weights_sha256, "trial": result.trial, "run": rebuilder.run.name}
    (folder / IDENTITY).write_text(json.dumps(identity, indent=1), encoding="utf-8")
    (folder / "README.md").write_text(model_card(rebuilder, result, recipe, text), encoding="utf-8")


def checkpoint_digest(folder: Path) -> str:
    """sha256 of the tensors stored in a checkpoint, as `merging.digest` has it; a tied lm_head is left out."""
    digests = {}
    tied = json.loads((folder / "config.json").read_text())["tie_word_embeddings"]
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 (not a mapping)
                if not (tied and name == "lm_head.weight"):
                    digests[name] = tensor_digest(name, file.get_tensor(name))
    return digest(digests)


def _check_answer(rebuilder: Rebuilder, result: TrialResult, folder: Path, out: Path) -> str:
    """Load the checkpoint with transformers alone and compare its greedy answer with the resident model's."""
    response = files.read_responses(files.trial_folder(rebuilder.run, result.same_as or result.trial))[0]
    tokens = rebuilder.config.generation.max_new_tokens
    greedy = GenerationConfig(max_new_tokens=tokens)
    expected = generate(rebuilder.merger.model, rebuilder.tokenizer, [response.prompt_ids], greedy)[0]
    loaded: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=rebuilder.dtype, trust_remote_code=False)
    loaded.to(rebuilder.merger.model.device).eval()
    ids = torch.tensor([response.prompt_ids], device=loaded.device)
    answer = loaded.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, do_sample=False, num_beams=1,
        temperature=None, top_p=None, top_k=None, repetition_penalty=1.0,
        eos_token_id=sorted(end_tokens(rebuilder.merger.model, rebuilder.tokenizer)),
    )[0, ids.shape[1] :].tolist()  # fmt: skip
    if answer != list(expected.token_ids):
        raise RunError(
            f"{folder}: transformers answers the first prompt otherwise than the scored model; it is left to look at"
        )
    return f"{out}: transformers loads it and gives the same greedy answer of {len(answer)} tokens to the first prompt"


def model_card(rebuilder: Rebuilder, result: TrialResult, recipe: MergeRecipe, recipe_text: str) -> str:
    """A Hugging Face model card: what was merged, how, and what the score rests on."""
    import yaml

    named = rebuilder.family
    locations = {name: _public_name(path) for name, path in named.folders.items()}
    front = {
        "base_model": sorted(set(locations.values())),
        "library_name": "transformers",
        "tags": ["mergekit", "merge", "nex-merge"],
    }
    score, text, rivals = result.score, result.text, result.rivals
    assert score is not None and text is not None and rivals is not None, "only scored trials are exported"
    public = recipe_text
    for name, path in named.folders.items():
        public = public.replace(str(path), locations[name])
    rest = [
        f"| NEX, calibration {score.calibration} | {score.nex:.6f} |",
        f"| 95 % interval over prompts | {_number(score.low)} to {_number(score.high)} |",
        f"| responses scored | {score.scored} of {score.responses} |",
        f"| responses that earned credit | {score.credited} |",
        f"| cycles | {score.cycles} |",
        f"| mean tokens a response | {rivals.mean_tokens:.1f} |",
        f"| truncated | {text.truncated:.3f} |",
        f"| mean token entropy, nats | {rivals.entropy:.6f} |",
    ]
    return "\n".join(
        [
            "---",
            yaml.safe_dump(front, sort_keys=False).rstrip(),
            "---",
            f"# Merge of {', '.join(named.models)} ({result.method})",
            "",
            f"Trial {result.trial} of a search with nex-merge over family {named.name}, ranked without labels by",
            "Neuron Explore-Exploit scoring (arXiv 2602.05805) and written by mergekit's method of the same name.",
            f"Weights are stored in {rebuilder.out_dtype}; they were scored computing in {str(rebuilder.dtype)[6:]}.",
            "",
            "| what the ranking rests on | |",
            "|---|---|",
            *rest,
            "",
            f"Seed of the merge: {recipe.seed}. sha256 of the tensors: `{result.weights_sha256}`.",
            "",
            "```yaml",
            public.rstrip(),
            "```",
            "",
        ]
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.6f}"


def _public_name(path: Path) -> str:
    """A hub id where the folder is a hub snapshot, else the folder's own name."""
    for part in path.parts:
        if part.startswith("models--"):
            return part.removeprefix("models--").replace("--", "/")
    return path.name
