"""What is said before a search: figures for the toy family computed by hand, warnings, and what is refused."""

from types import SimpleNamespace

import pytest

from nex_merge.engines.transformers import FamilyEngine
from nex_merge.errors import InputError
from nex_merge.setup.resolve import resolve_config
from nex_merge.study import estimate, preflight
from tests.conftest import toy_settings

# Per layer: queries and output 16 x 16, keys and values 8 x 16, their norms of 8, three matrices of 16 x 32, two norms.
LAYER = 2 * 16 * 16 + 2 * 8 * 16 + 2 * 8 + 3 * 16 * 32 + 2 * 16
EMBEDDING = 190 * 16  # tied: the output layer has none of its own
PARAMETERS = EMBEDDING + 2 * LAYER + 16


@pytest.fixture
def said(toy, tmp_path, monkeypatch):
    """estimate() of the toy search with two prompts of 1 and 3 tokens, as a mapping from label to line(s)."""
    (tmp_path / "prompts.txt").write_text("pairs\na1 b2 c3\n")
    prompts = {"file": str(tmp_path / "prompts.txt"), "chat_template": False}

    def estimated(memory=10**12, disk=10**12, **changes):
        monkeypatch.setattr(estimate.psutil, "virtual_memory", lambda: SimpleNamespace(available=memory))
        monkeypatch.setattr(estimate.shutil, "disk_usage", lambda path: SimpleNamespace(free=disk))
        settings = toy_settings(toy, tmp_path / "run") | {"prompts": prompts} | changes
        lines = {}
        for line in estimate.estimate(resolve_config(settings)):
            label, _, text = line.partition(" ")
            lines.setdefault(label, []).append(text.strip())
        assert not (tmp_path / "run").exists(), "nothing is written"
        return {label: text[0] if label != "warning" else text for label, text in lines.items()}

    return estimated


def test_what_a_search_would_do(said):
    found = said(generation={"max_new_tokens": 24, "samples": 2, "temperature": 0.7})
    assert PARAMETERS == 7760
    assert found["family"] == "custom: base, a, b; 0.0M parameters each"
    assert found["methods"] == "ties" and found["recipes"] == "unlimited (a range is continuous)"
    assert found["trials"] == "4 merges and 3 baselines"
    # (4 + 3) trials x 2 prompts x 2 samples x 24 tokens
    assert found["tokens"] == "at most 672 to generate (2 prompts, 2 samples each, of at most 24)"
    assert "warning" not in found


def test_without_baselines_and_with_a_grid(said):
    parameters = {"weight": {"choices": [0.5, 1.0]}, "density": {"low": 0.2, "high": 1.0, "step": 0.2}}
    found = said(
        study={"trials": 4, "baselines": False}, search_space={"methods": ["ties"], "parameters": parameters},
        generation={"max_new_tokens": 24},
    )  # fmt: skip
    assert found["trials"] == "4 merges and 0 baselines" and found["tokens"].startswith("at most 192 ")
    assert found["recipes"] == "100", "2 weights and 5 densities of each of two models"


@pytest.mark.parametrize(
    ("generation", "keys_values", "need"),
    [
        # 3 + 24 positions x 128 bytes x 4 responses at once x 1.25 x 1.125: less than a merge takes
        ({"max_new_tokens": 24, "samples": 2, "temperature": 0.7}, "19.4 kB", "126.2 kB"),
        # 3 + 200 positions: more than a merge
        ({"max_new_tokens": 200, "samples": 2, "temperature": 0.7}, "146.2 kB", "223.8 kB"),
        # a batch has room for one response
        ({"max_new_tokens": 200, "samples": 2, "temperature": 0.7, "batch_tokens": 203}, "36.5 kB", "126.2 kB"),
    ],
)
def test_memory(said, generation, keys_values, need):
    """Three parents in bfloat16, the model in float32, and the larger of keys and values and of a merge.

    A position's keys and values: 2 x 2 layers x 1 head x 8 numbers of 4 bytes = 128 bytes. A merge holds the embedding
    of both models, of the base, and of the result in float32: 4 x 4 x 3040 = 48,640 bytes.
    """
    assert 3 * 2 * PARAMETERS == 46_560 and 4 * PARAMETERS == 31_040 and 4 * 4 * EMBEDDING == 48_640
    assert said(generation=generation)["memory"] == (
        f"about {need}: parents 46.6 kB (mapped), resident model 31.0 kB (float32 on cpu), and keys and values "
        f"{keys_values}, a merge 48.6 kB or, in the rehearsal, a member 31.0 kB; free 1.0 TB"
    )


@pytest.mark.parametrize(
    ("method", "parallel", "device", "masks"),
    [
        ("dare_ties", 2, "cuda", 2 * PARAMETERS),
        ("dare_ties", 1, "cuda", 0),
        ("ties", 2, "cuda", 0),
        ("dare_ties", 2, "cpu", 0),
    ],
)
def test_random_masks_of_the_next_merge_are_counted(toy, tmp_path, method, parallel, device, masks):
    """A byte for each element of two models, where another trial may follow before this one is told, on a GPU."""
    study = {"trials": 4, "parallel": parallel}
    resolved = resolve_config(toy_settings(toy, tmp_path / "run") | {"search_space": method, "study": study})
    assert estimate._masks(preflight.check(resolved), resolved.config, device, 2) == masks


def test_what_vllm_takes_is_counted(said, monkeypatch):
    """A copy of the weights, an output layer, 190 x 16 numbers of 4 bytes, and keys and values of 1,000 tokens."""
    monkeypatch.setattr(preflight, "check_vllm", lambda runtime: None)
    monkeypatch.setattr(preflight, "engine_for", FamilyEngine)
    found = said(runtime={"engine": "vllm"}, generation={"max_new_tokens": 24, "batch_tokens": 1000})["memory"]
    assert 4 * (PARAMETERS + EMBEDDING) == 43_200
    assert ", and keys and values 128.0 kB, a merge" in found and ", and a model of vLLM 43.2 kB; free" in found
    assert found.startswith("about 248.8 kB: "), "46,560 + 31,040 + 43,200 + 128,000"


@pytest.mark.parametrize(("free", "warned"), [(126_240, False), (126_239, True)])
def test_a_warning_where_memory_is_short(said, free, warned):
    found = said(memory=free, generation={"max_new_tokens": 24, "samples": 2, "temperature": 0.7})
    warning = "this may exceed the free memory; lower generation.batch_tokens"
    assert found.get("warning", []) == [warning] * warned


def test_disk(said, tmp_path):
    """28 responses x 12 rows of 2 tokens x 8 neurons x 12 bytes; TIES keeps a rank of 4 bytes for every weight."""
    assert 28 * 12 * 8 * 12 == 32_256 and 4 * 2 * PARAMETERS == 62_080
    generation = {"max_new_tokens": 24, "samples": 2, "temperature": 0.7}
    place = f"in {tmp_path / 'run'}; free 1.0 TB"
    ties = said(generation=generation)["disk"]
    assert ties == f"at most 32.3 kB of caches, and 62.1 kB of sorted weights while it runs {place}"
    linear = {"methods": ["linear"], "parameters": {"weight": {"low": 0.0, "high": 1.0}}}
    assert said(generation=generation, search_space=linear)["disk"] == f"at most 32.3 kB of caches {place}"
    # 3 x 4 responses of base and parents and 1 or 2 x 4 of merges whole; of the other merges, 6 of the 12 bytes.
    for keep, size in (("none", "25.3 kB"), ("top:1", "27.6 kB"), ("top:3", "32.3 kB"), ("top:9", "32.3 kB")):
        activations = {"slice_tokens": 2, "top_k": 8, "keep": keep}
        assert said(generation=generation, activations=activations)["disk"].startswith(f"at most {size} of caches, ")
    assert (12 + 4) * 12 * 8 * 12 + 12 * 12 * 8 * 6 == 25_344 and (12 + 8) * 12 * 8 * 12 + 8 * 12 * 8 * 6 == 27_648
    odd = {"max_new_tokens": 23, "samples": 2, "temperature": 0.7}
    assert said(generation=odd)["disk"] == ties, "the last row may be shorter"


@pytest.mark.parametrize(
    ("free", "warning"),
    [
        (
            32_255,
            "the caches may exceed the free disk space; use fewer trials, a lower activations.top_k, or keep those of "
            "the best merges alone (activations.keep)",
        ),
        (32_256, "sorted weights may exceed the free disk space; without them, every trial sorts again"),
        (
            32_256 + 62_080 + 2**30 - 1,
            "sorted weights may exceed the free disk space; without them, every trial sorts again",
        ),
        (32_256 + 62_080 + 2**30, None),
    ],
)
def test_a_warning_where_the_disk_is_short(said, free, warning):
    found = said(disk=free, generation={"max_new_tokens": 24, "samples": 2, "temperature": 0.7})
    assert found.get("warning", []) == ([] if warning is None else [warning])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"study": {"objective": "entropi"}}, r"study\.objective: unknown measure 'entropi'\. Did you mean 'entropy'"),
        ({"search_space": {"methods": ["tise"]}}, r"methods\.0: unknown merge method 'tise'"),
        (
            {"prompts": {"file": "configs/prompts/qwen3_tiny.jsonl", "chat_template": False, "system": "x"}},
            r"prompts\.chat_template: expected true, because prompts\.system requires a template",
        ),
        ({"runtime": {"device": "cuda:99"}}, r"runtime\.device: expected a device of this machine, got 'cuda:99'"),
        (
            {"generation": {"max_new_tokens": 510}},
            r"expected at most 509, got 510: .+ prompt 2 .+ has 3 tokens",
        ),
        (
            {"search_space": {"methods": ["ties"], "parameters": {"weight": 0.5}, "filters": ["mpl"]}},
            r"filters\.0: expected part of a tensor's name, got 'mpl'",
        ),
    ],
)
def test_what_is_refused(said, changes, message):
    with pytest.raises(InputError, match=message):
        said(**changes)


def test_a_prompt_that_is_longer_than_the_context_is_named(said, tmp_path):
    (tmp_path / "long.csv").write_text("prompt\npairs\n" + "a1 " * 600 + "\n")
    with pytest.raises(InputError, match=r"prompt 2 \(.+long\.csv line 3: prompt\): expected fewer than 512 tokens"):
        said(prompts={"file": str(tmp_path / "long.csv"), "chat_template": False})


def test_crossfit_needs_two_prompts(toy, tmp_path):
    settings = toy_settings(toy, tmp_path / "run") | {"nex": {"calibration": "crossfit"}}
    preflight.check(resolve_config(settings, {"prompts": {"limit": 2}}))
    with pytest.raises(InputError, match=r"nex\.calibration: crossfit .* needs at least 2, got 1; use self"):
        preflight.check(resolve_config(settings, {"prompts": {"limit": 1}}))


def test_samples_that_would_all_be_the_same_are_refused(toy_config):
    given = {"generation": {"max_new_tokens": 24, "samples": 4}}
    with pytest.raises(InputError, match=r"generation\.samples: 4 responses to a prompt are all the same"):
        preflight.check(resolve_config(str(toy_config), given))
    preflight.check(resolve_config(str(toy_config), {"generation": {**given["generation"], "temperature": 0.7}}))
