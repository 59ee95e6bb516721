"""What docs/faq.md quotes is what nex-merge says: copies of qwen3-tiny are spoiled, and its words are in both."""

import json
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, Olmo3Config

from nex_merge.answer_files.ranking import rank_files
from nex_merge.checkpoints.exported import add_older_names, needs_transformers_5
from nex_merge.compare.pairs import open_comparison
from nex_merge.compare.sheets import read_sheets
from nex_merge.errors import InputError, RunError
from nex_merge.runs.advice import next_steps
from nex_merge.runs.leaderboard import read_rows
from nex_merge.runs.rescore import rescore_run
from nex_merge.runs.results import read_reliability
from nex_merge.runs.run import RunFolder
from nex_merge.setup.config import RuntimeConfig
from nex_merge.setup.resolve import resolve_config
from nex_merge.study.crew import Crew, Task
from nex_merge.study.estimate import estimate
from nex_merge.study.observers import Observers
from nex_merge.workers.cluster import ROOM, TELLING
from nex_merge.workers.executors import HERE, Gone, Here
from nex_merge.workers.nodes import Facts, family_here, held_against, members
from nex_merge.workers.places import places
from nex_merge.workers.processes import _cause
from tests.compare.compared import chat
from tests.compare.conftest import chats, searched  # noqa: F401
from tests.conftest import toy_settings
from tests.labels.answered import answer_run
from tests.pages import FAQ, ROOT
from tests.workers.silent import silent_cluster

WEIGHTS = ROOT / "nex_merge" / "families" / "qwen3_tiny" / "weights"
UP, EMBEDDINGS = "model.layers.0.mlp.up_proj.weight", "model.embed_tokens.weight"
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512, "rope_theta": 5e5}
OTHER = {"rope_type": "default", "rope_theta": 1e4}
Family = dict[str, Path]
Spoil = Callable[[Family], dict | None]


def change(folder: Path, how: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(folder / "model.safetensors")
    how(tensors)
    save_file(
        {name: value.contiguous() for name, value in tensors.items()}, folder / "model.safetensors", {"format": "pt"}
    )


def set_json(file: Path, **values) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def larger_vocabulary(family: Family) -> None:
    rows_without_config(family)
    set_json(family["pairs"] / "config.json", vocab_size=198)


def rows_without_config(family: Family) -> None:
    change(family["pairs"], lambda t: t.update({EMBEDDINGS: torch.cat([t[EMBEDDINGS], t[EMBEDDINGS][:8]])}))


def copy_of_base(family: Family) -> None:
    shutil.copytree(family["base"], family["pairs"], dirs_exist_ok=True)


def no_template(family: Family) -> None:
    (family["base"] / "chat_template.jinja").unlink()


def other_template(family: Family) -> None:
    file = family["base"] / "chat_template.jinja"
    file.write_text(file.read_text() + " ")


def not_a_number(family: Family) -> None:
    change(family["pairs"], lambda t: t[UP].view(-1)[:1].fill_(float("nan")))


def beyond_float16(family: Family) -> dict:
    def grow(tensors: dict[str, torch.Tensor]) -> None:
        tensors[UP] = tensors[UP].float()
        tensors[UP][0, 0] = 7e4

    change(family["pairs"], grow)
    return {"dtype": "float16"}


def overflowing_merge(family: Family) -> dict:
    for name in ("pairs", "signs"):
        change(family[name], lambda t: t[UP][0].fill_(3e4))
    return {"dtype": "float16"}


def other_base(family: Family) -> None:
    generator = torch.Generator().manual_seed(0)

    def redraw(tensors: dict[str, torch.Tensor]) -> None:
        for name, value in tensors.items():
            if value.dim() > 1:
                drawn = torch.randn(value.shape, generator=generator) * value.float().std()
                tensors[name] = drawn.to(value.dtype)

    change(family["base"], redraw)


def other_head(family: Family) -> None:
    change(family["pairs"], lambda t: t.update({"lm_head.weight": t[EMBEDDINGS] + 0.1}))


def adapter_of(*modules: str, wrapper: str = "") -> Spoil:
    """A LoRA adapter on the base in place of a model, its tensors named for a `wrapper`."""

    def spoil(family: Family) -> dict:
        folder = family["base"].parent / "adapter"
        model = AutoModelForCausalLM.from_pretrained(family["base"])
        peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=list(modules))).save_pretrained(folder)
        parts = load_file(folder / "adapter_model.safetensors")
        named = {key.replace("model.layers", f"model.{wrapper}layers"): value + 0.1 for key, value in parts.items()}
        save_file(named, folder / "adapter_model.safetensors", {"format": "pt"})
        members = {"pairs": {"path": "base", "adapter": str(folder)}, "signs": str(family["signs"])}
        return {"models": members}

    return spoil


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (larger_vocabulary, "cannot be merged with base: vocab_size: expected 190, got 198 (config.json)"),
        (rows_without_config, "the embeddings have 198 rows: they were resized without the config"),
        (copy_of_base, "the same weights as base, element by element: its task vector is zero"),
        (
            adapter_of("embed_tokens"),
            "ties its output layer to its embeddings (tie_word_embeddings: true): merged, both would change, which is "
            "another model than peft's",
        ),
        (adapter_of("q_proj", wrapper="language_model."), "tensors that find no place in"),
        (no_template, "the tokenizer has no chat template"),
        (other_template, "chat template differs from base's; all variants are asked with the donor's"),
        (not_a_number, "has 1 of 196,608 elements that are NaN or infinite"),
        (beyond_float16, "has values up to 7e+04, beyond the range of float16 (±65504)"),
        (overflowing_merge, "is not finite. Remove the method, or change the family (dtype: bfloat16 has room"),
        (
            other_base,
            "its weights differ from base's by 1.42 times their size, as unrelated models do. base is probably not the "
            "model it was trained from",
        ),
        (
            other_head,
            "lm_head.weight differs from the embeddings, though config.json has tie_word_embeddings: true",
        ),
    ],
)  # fmt: skip
def test_the_words_of_a_symptom(spoil: Spoil, words, tmp_path):
    family = {name: Path(shutil.copytree(WEIGHTS / name, tmp_path / name)) for name in ("base", "pairs", "signs")}
    more = spoil(family) or {}
    config = {
        "family": {"base": str(family["base"]), "models": {n: str(family[n]) for n in ("pairs", "signs")}, **more},
        "search_space": {"methods": ["dare_ties"], "parameters": {"weight": 1.0, "density": 0.2}},
        "prompts": {"file": "configs/prompts/qwen3_tiny.jsonl", "limit": 1},
        "generation": {"max_new_tokens": 16},
        "output": str(tmp_path / "run"),
    }
    try:
        said = "\n".join(estimate(resolve_config(config)))
    except InputError as error:
        said = str(error)
    assert words in said
    assert words in FAQ


def test_the_words_about_files_that_lack_prompts(tmp_path):
    files = [tmp_path / f"{name}.jsonl" for name in "abcde"]
    for count, file in zip((24, 24, 24, 24, 9), files, strict=True):
        lines = [json.dumps({"prompt": f"{n} + 1?", "response": f"{n + 1}"}) for n in range(count)]
        file.write_text("\n".join(lines))
    found = rank_files(files)
    said = " ".join([found.ranking.verdict, *found.ranking.reasons, *found.notes])
    for words in (
        "lacks 15 of 24 prompts, which count as not answered", "insufficient", "only 9 of 24 prompts are in all files",
    ):  # fmt: skip
        assert words in said and words in FAQ


def test_the_words_on_an_older_transformers(tmp_path):
    shutil.copy(WEIGHTS / "base" / "tokenizer_config.json", tmp_path)
    Olmo3Config(rope_parameters={"full_attention": YARN, "sliding_attention": OTHER}).save_pretrained(tmp_path)
    add_older_names(tmp_path, tmp_path)
    words = needs_transformers_5(tmp_path)
    assert len(words) == 2 and words[0] in FAQ and f"needs transformers 5 or newer: {words[1]}" in FAQ


def test_the_words_about_comparing(chats, tmp_path):  # noqa: F811
    rescore_run(RunFolder(chats), RunFolder(chats).scoring())
    steps = next_steps(read_rows(RunFolder(chats)), RunFolder(chats).objective, read_reliability(chats), chats)
    said = [*steps, *read_reliability(chats).of("consensus").reasons]
    sheet = tmp_path / "ann.csv"
    sheet.write_text("comparison,index,better\nc0,0,left\n")
    found = open_comparison(RunFolder(chats), ("0", "base"))
    with pytest.raises(InputError) as other:
        read_sheets(found, [sheet], None)
    sheet.write_text(f"comparison,index,better\n{found.comparison.id},{found.comparison.order[0]},best\n")
    with pytest.raises(InputError) as word:
        read_sheets(found, [sheet], None)
    answer_run(chats, lambda v, p: chat(v, p) if p < 4 else "the same")
    with pytest.raises(InputError) as few:
        open_comparison(RunFolder(chats), ("0", "base")).check_enough()
    said = " ".join([*said, *(str(error.value) for error in (other, word, few))])
    for words in (
        "hardly any two variants conclude the same on any prompt: the answers are open-ended",
        "A few looks settle it: nex-merge compare", "is of the comparison",
        "on 4 of 12 prompts, and of fewer than 6 looks not even agreement shows that one is better",
        "of another run, of two other trials (--between names them), or the answers have changed since",
        "better: expected left, right, both or neither, or nothing",
    ):  # fmt: skip
        assert words in said and words in FAQ, words


class NoWorkerLives(Here):
    """Loses every worker at its job."""

    def __init__(self):
        self._job = None

    def wait(self, progress):
        return self._job and Gone(HERE, HERE, _cause(-signal.SIGKILL))


def test_the_words_about_workers():
    with pytest.raises(InputError) as many:
        places(RuntimeConfig(device="cpu", workers=9), 4)
    failed = []
    task = Task("0000", "ties", lambda: (job for job in ["a job"]))
    Crew(NoWorkerLives(), Observers([])).in_order(
        1, lambda n: task if n == 0 else None, lambda n, outcome: failed.append(outcome)
    )
    said = f"{many.value} {failed[0].error}"
    for words in (
        "runtime.workers: expected at most 4, got 9", "its worker was lost in each of 3 tries",
        "was ended by SIGKILL, as the kernel does where memory runs out",
    ):  # fmt: skip
        assert words in said and words in FAQ, words


def test_the_words_about_nodes_with_other_versions():
    own = {"torch": "2.13.0", "numpy": "2.4.0"}
    with pytest.raises(InputError) as torch_differs:
        list(held_against(own, Facts("node", "node", {**own, "torch": "2.9.0"}, "x86_64")))
    said = " ".join(
        [str(torch_differs.value), *held_against(own, Facts("node", "node", {**own, "numpy": "2.3.0"}, "x86_64"))]
    )
    for words in (
        "has torch 2.9.0, the search has 2.13.0; merged weights and answers depend on it, so every node needs the same",
        "Install it there, or use one environment for all", "has numpy 2.3.0, the search has 2.4.0",
    ):  # fmt: skip
        assert words in said and words in FAQ, words


def test_the_words_about_checkpoints_on_a_node(toy, tmp_path):
    resolved = resolve_config(toy_settings(toy, tmp_path / "run"))
    sought, said = members(resolved.family, resolved.resolved), []
    for on_this_node in (
        {**sought.entry, "base": {"path": "nowhere"}},
        {**sought.entry, "models": {**sought.entry["models"], "a": {"path": str(toy["b"])}}},
    ):
        with pytest.raises(InputError) as refused:
            family_here(replace(sought, entry=on_this_node))
        said.append(str(refused.value))
    with pytest.raises(InputError) as edited:
        family_here(replace(sought, settings={**sought.settings, "a": {}}))
    said = " ".join([*said, str(edited.value)])
    for words in (
        "Every node needs the search's checkpoints: in a shared folder, as copies in the same place, or by hub id",
        "has other weights than the search has by that name",
        "has another config or tokenizer than the search has by that name",
        "Copy the search's checkpoint there, or use a shared folder",
    ):  # fmt: skip
        assert words in said and words in FAQ, words


def test_the_words_about_a_cluster_without_a_worker(monkeypatch):
    with silent_cluster(monkeypatch) as (cluster, notes):
        cluster._idle = time.monotonic() - TELLING - 1
        cluster._look_for_room()
        cluster._idle = time.monotonic() - ROOM - 1
        with pytest.raises(RunError) as given_up:
            cluster._look_for_room()
    said = " ".join([*notes, str(given_up.value)])
    for words in (
        "no worker has a node yet; waiting for room in the cluster",
        "there was no room for a worker in 15 minutes. Give the cluster nodes, or free some; the same command goes on",
    ):  # fmt: skip
        assert words in said and words in FAQ, words
