"""Write a variant as a checkpoint, and prove that it holds the tensors that were scored and answers as it did."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM

from nex_merge.engines.transformers import TransformersEngine
from nex_merge.errors import InputError, RunError
from nex_merge.generation import end_tokens
from nex_merge.merging import digest, generation_config, tensor_digest
from nex_merge.records import MergeRecipe, Response, TrialResult
from nex_merge.runs import files
from nex_merge.runs.leaderboard import best_merge, latest_results, read_rows
from nex_merge.runs.remerge import Remerger
from nex_merge.runs.run import Run
from nex_merge.setup.config import GenerationConfig
from nex_merge.setup.paths import command

IDENTITY = "nex_merge.json"
# How many roundings of the largest logit two forward passes in half precision may differ by.
ROUNDINGS = 4


def export_trial(run: Run, trial: str | None, out: Path) -> Iterator[str]:
    """Export a trial (the best merge unless named) to `out`; what was done and shown, line by line.

    `out` appears whole, by rename, only once everything is checked. Raises InputError where there is nothing to export
    or `out` is in use, RunError where the checkpoint would not be the variant that was scored.
    """
    named, out = out, out.resolve()
    result = best_merge(run) if trial is None else _exportable(run, trial)
    if trial is None and (above := _above(run, result.trial)):
        yield f"note: {above} above trial {result.trial}, the best merge; see: {command('leaderboard', run.path)}"
    # The figures shown are those of the leaderboard, which may have been rescored since.
    result = next(item for item in latest_results(run) if item.trial == result.trial)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"--out: expected a new or empty folder, got {out}, which is not empty")
    remerger = Remerger(run)
    recipe = remerger.load(result)
    yield f"trial {result.trial}: merged again, the same tensors as scored (SHA-256 {str(result.weights_sha256)[:16]})"
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    _write(remerger, result, recipe, partial)
    found = checkpoint_digest(partial)
    if found != result.weights_sha256:
        raise RunError(
            f"{partial}: its tensors (SHA-256 {found[:16]}) are not those that were scored; it is kept for inspection"
        )
    yield f"{named}: read back from disk, every tensor equal to the merged one, bit for bit"
    yield _check_answer(remerger, result, partial, named)
    if out.exists():
        out.rmdir()
    partial.replace(out)
    name, value = run.objective.name, result.value(run.objective.name)
    yield f"done: {named}" + ("" if value is None else f" ({name} {value:.4f})")


def _exportable(run: Run, trial: str) -> TrialResult:
    """The trial asked for. Raises InputError where it failed."""
    result = run.find(trial)
    if result.state == "failed":
        raise InputError(f"trial {result.trial} failed ({result.reason}); there is nothing to export")
    return result


def _above(run: Run, trial: str) -> str:
    """Which of base and parents rank above a trial, for a sentence; empty where none does."""
    ranked = [row for row in read_rows(run) if row["rank"] is not None]
    place = next((row["rank"] for row in ranked if row["trial"] == trial), None)
    names = [row["trial"] for row in ranked if row["kind"] != "merge" and place is not None and row["rank"] < place]
    if not names:
        return ""
    return f"{names[0]} ranks" if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]} rank"


def _write(remerger: Remerger, result: TrialResult, recipe: MergeRecipe, folder: Path) -> None:
    model = remerger.engine.merger.model
    out_dtype = getattr(torch, remerger.engine.out_dtype)
    # Exact: the resident tensors were rounded to this dtype before they were widened.
    state = {name: parameter.detach().to("cpu", out_dtype) for name, parameter in model.named_parameters()}
    shell = type(model)._from_config(remerger.engine.merger.config_of(recipe), dtype=out_dtype)
    shell.load_state_dict(state, strict=False)
    shell.tie_weights()
    donor = remerger.family.folders[remerger.engine.merger.member_of(recipe)]
    shell.generation_config = generation_config(donor)
    shell.generation_config.eos_token_id = sorted(end_tokens(model, remerger.engine.tokenizer))
    shell.save_pretrained(folder)
    remerger.engine.tokenizer.save_pretrained(folder)
    text = (remerger.run.folder(result.trial) / files.RECIPE).read_text(encoding="utf-8")
    (folder / "mergekit_config.yml").write_text(text, encoding="utf-8")
    identity = {"weights_sha256": result.weights_sha256, "trial": result.trial, "run": remerger.run.path.name}
    (folder / IDENTITY).write_text(json.dumps(identity, indent=1), encoding="utf-8")
    (folder / "README.md").write_text(model_card(remerger, result, recipe, text), encoding="utf-8")


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


def _check_answer(remerger: Remerger, result: TrialResult, folder: Path, out: Path) -> str:
    """Load the checkpoint with transformers alone and compare it with the resident model on the first prompt.

    In float32 the greedy answers have to be equal, token by token. In half precision rounding may decide between
    tokens that are nearly tied, so the stored response is read again instead and the logits are compared.
    """
    loaded: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=remerger.engine.dtype, trust_remote_code=False)
    loaded.to(remerger.engine.model.device).eval()
    response = remerger.run.responses(result.same_as or result.trial)[0]
    if remerger.engine.dtype == torch.float32:
        return _check_greedy(remerger, loaded, response, folder, out)
    return _check_logits(remerger, loaded, response, folder, out)


def _check_greedy(remerger: Remerger, loaded: Any, response: Response, folder: Path, out: Path) -> str:
    engine, tokens = remerger.engine, remerger.config.generation.max_new_tokens
    expected = engine.answer([response.prompt_ids], GenerationConfig(max_new_tokens=tokens))[0]
    ids = torch.tensor([response.prompt_ids], device=loaded.device)
    answer = loaded.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, do_sample=False, num_beams=1,
        temperature=None, top_p=None, top_k=None, repetition_penalty=1.0,
        eos_token_id=sorted(end_tokens(engine.model, engine.tokenizer)),
    )[0, ids.shape[1] :].tolist()  # fmt: skip
    if answer != list(expected.token_ids):
        raise RunError(
            f"{folder}: transformers answers the first prompt differently from the scored model; it is kept for "
            "inspection"
        )
    return f"{out}: transformers loads it and gives the same greedy answer of {len(answer)} tokens to the first prompt"


def _check_logits(remerger: Remerger, loaded: Any, response: Response, folder: Path, out: Path) -> str:
    engine = remerger.engine
    ids = [*response.prompt_ids, *response.token_ids]
    expected, found = engine.logits(ids), TransformersEngine(loaded, engine.tokenizer).logits(ids)
    off, allowed = float(abs(found - expected).max()), ROUNDINGS * torch.finfo(engine.dtype).eps * abs(expected).max()
    if not off <= allowed:
        raise RunError(
            f"{folder}: transformers gives other logits than the scored model for the first response (difference "
            f"{off:.3g}, {allowed:.3g} allowed in {str(engine.dtype)[6:]}); it is kept for inspection"
        )
    return (
        f"{out}: transformers loads it and gives the same logits for the first response of {len(response.token_ids)} "
        f"tokens, within the rounding of {str(engine.dtype)[6:]} (difference {off:.3g})"
    )


def model_card(remerger: Remerger, result: TrialResult, recipe: MergeRecipe, recipe_text: str) -> str:
    """A Hugging Face model card: what was merged, how, and what the score rests on."""
    import yaml

    named = remerger.family
    locations = {name: _public_name(path) for name, path in named.folders.items()}
    front = {
        "base_model": sorted(set(locations.values())),
        "library_name": "transformers",
        "tags": ["mergekit", "merge", "nex-merge"],
    }
    score = result.score
    assert score is not None, "only scored trials are exported"
    public = recipe_text
    for name, path in named.folders.items():
        public = public.replace(str(path), locations[name])
    nex = result.estimates["nex"]
    rest = [
        f"| NEX, calibration {score.calibration} | {_number(nex.value)} |",
        f"| 95 % interval over prompts | {_number(nex.low)} to {_number(nex.high)} |",
        f"| responses scored | {score.scored} of {score.responses} |",
        f"| responses that earned credit | {score.credited} |",
        f"| cycles | {score.cycles} |",
        f"| mean tokens of a response | {_number(result.value('mean_tokens'), 1)} |",
        f"| truncated | {_number(result.value('truncated'), 3)} |",
        f"| mean token entropy, nats | {_number(result.value('entropy'))} |",
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
            f"Weights are stored in {remerger.engine.out_dtype}; they were scored computing in "
            f"{str(remerger.engine.dtype)[6:]}.",
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


def _number(value: float | None, digits: int = 6) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _public_name(path: Path) -> str:
    """A hub id where the folder is a hub snapshot, else the folder's own name."""
    for part in path.parts:
        if part.startswith("models--"):
            return part.removeprefix("models--").replace("--", "/")
    return path.name
