"""One pass over all weights finds what would spoil every merge."""

import shutil
from pathlib import Path

import pytest
import torch

from nex_merge.errors import InputError
from nex_merge.merging import method_specs, survey
from tests.checkpoints.conftest import rewrite

pytestmark = pytest.mark.quick
MATRIX = "model.layers.1.mlp.down_proj.weight"


@pytest.fixture
def family(toy, tmp_path) -> dict[str, Path]:
    """Base, and a and b near it."""
    folders = {name: Path(shutil.copytree(toy["base"], tmp_path / name)) for name in ("base", "a", "b")}
    for seed, name in enumerate("ab"):
        torch.manual_seed(seed)
        rewrite(
            folders[name], lambda tensors: {k: v + 0.03 * torch.randn(v.shape).bfloat16() for k, v in tensors.items()}
        )
    return folders


def fill(name, value):
    def change(tensors):
        tensors[name].view(-1)[3] = value
        return tensors

    return change


def test_a_sound_family_needs_no_words(family):
    assert survey(family, "bfloat16") == []


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", [MATRIX, "model.norm.weight"])
def test_elements_that_are_not_finite(family, value, name):
    rewrite(family["a"], fill(name, value))
    with pytest.raises(InputError, match=rf"a: .+model\.safetensors: {name} has 1 of \d+ elements that are NaN or inf"):
        survey(family, "bfloat16")


def test_values_beyond_the_range_of_the_merged_weights(family):
    rewrite(family["b"], fill(MATRIX, -1e6))
    with pytest.raises(InputError, match=rf"b: .+{MATRIX} has values up to 9.99e\+05, .+float16 .+: `dtype: bfloat16`"):
        survey(family, "float16")
    assert survey(family, "bfloat16") == survey(family, "float32")
    rewrite(family["b"], lambda tensors: fill(MATRIX, 3.4e38)({k: v.float() for k, v in tensors.items()}))
    with pytest.raises(InputError, match=r"beyond the range of bfloat16 .+: `dtype: float32`"):
        survey(family, "bfloat16")


def test_zeros(family):
    zero = lambda tensors: tensors | {MATRIX: torch.zeros_like(tensors[MATRIX])}  # noqa: E731
    rewrite(family["a"], zero)
    assert survey(family, "bfloat16") == [f"a: {MATRIX}: all zeros, unlike in other members"]
    for name in ("base", "b"):
        rewrite(family[name], zero)
    assert survey(family, "bfloat16") == [], "zero in all of them is the architecture's"
    rewrite(family["a"], lambda tensors: {k: torch.zeros_like(v) for k, v in tensors.items()})
    with pytest.raises(InputError, match="a: all 15 matrices are zeros"):
        survey(family, "bfloat16")


def test_the_wrong_base_is_told_by_the_length_of_the_task_vectors(family, toy):
    notes = survey({**family, "other": toy["a"]}, "bfloat16")
    assert len(notes) == 1 and notes[0].startswith("other: its weights differ from base's by 1.4")
    assert survey({"base": toy["a"], "other": toy["a"].parent / "a"}, "bfloat16", ()) == [
        "other: the same folder as base: its task vector is zero"
    ]


@pytest.mark.parametrize("make", [shutil.copytree, "links"])
def test_equal_weights_in_different_folders(family, tmp_path, make):
    for name, says in (("base", "its task vector is zero"), ("a", "a merge counts it twice")):
        folder = tmp_path / f"copy of {name}"
        if make == "links":
            folder.mkdir()
            for path in family[name].iterdir():
                (folder / path.name).symlink_to(path)
        else:
            shutil.copytree(family[name], folder)
        assert survey({**family, "copy": folder}, "bfloat16") == [
            f"copy: the same weights as {name}, element by element: {says}"
        ]


def test_one_bit_makes_a_difference_and_another_dtype_does_not(family, tmp_path):
    copied = Path(shutil.copytree(family["a"], tmp_path / "copied"))
    rewrite(copied, lambda tensors: {k: v.float() for k, v in tensors.items()})
    assert len(survey({**family, "copied": copied}, "bfloat16")) == 1
    rewrite(copied, lambda tensors: fill(MATRIX, tensors[MATRIX].view(-1)[3] + 1e-6)(tensors))
    assert survey({**family, "copied": copied}, "bfloat16") == []


def test_methods_that_cannot_work_with_the_base_as_an_expert(family):
    same = {"base": family["base"], "a": family["a"], "same": family["base"]}
    with pytest.raises(InputError, match=r"same: the same folder as base .+ model_stock needs at least 2 models"):
        survey(same, "bfloat16", [method_specs()["model_stock"]])
