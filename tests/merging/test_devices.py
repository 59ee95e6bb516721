"""Merging where the model is: the CPU's bits, tensors on one device, few waits, and a hash that is taken meanwhile."""

import threading
import weakref

import pytest
import torch

from nex_merge.errors import TrialError
from nex_merge.merging import Merger, hashing
from nex_merge.merging.alike import alike
from nex_merge.merging.workspace import Workspace
from nex_merge.records import MergeRecipe
from tests import pretend

METHODS = {
    "linear": {},
    "slerp": {"t": 0.3},
    "ties": {"density": 0.4},
    "dare_ties": {"density": 0.4},
    "della": {"density": 0.4, "epsilon": 0.1},
    "breadcrumbs": {"density": 0.4},
    "task_arithmetic": {},
}


def recipe_of(method, toy, seed=3, **config):
    models = [{"model": str(toy[name]), "parameters": {"weight": 0.6}} for name in ("a", "b")]
    made = {"merge_method": method, "models": models, "dtype": "float32", "out_dtype": "bfloat16"}
    if method == "slerp":
        made = {**made, "models": models[:1], "base_model": str(toy["base"]), "parameters": METHODS[method]}
    elif method != "linear":
        for model in models:
            model["parameters"] |= METHODS[method]
        made["base_model"] = str(toy["base"])
    return MergeRecipe("merge", method, {**made, **config}, seed)


def merger_on(device, toy, dtype=torch.float32):
    return Merger(toy, "base", device, dtype)


@pytest.fixture(scope="module")
def device():
    found = pretend.device()
    alike(found)  # asked once
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_device_has_the_cpus_weights(toy, device, dtype):
    here, there = merger_on("cpu", toy, dtype), merger_on(str(device), toy, dtype)
    for method in METHODS:
        recipe = recipe_of(method, toy)
        pretend.waits.clear()
        sha256 = there.begin(recipe)
        counted = len(pretend.waits)
        assert sha256() == here.load(recipe), method
        tensors = dict(here.model.named_parameters())
        assert all(torch.equal(found.cpu(), tensors[name]) for name, found in there.model.named_parameters()), method
        if method not in ("dare_ties", "della"):  # which rescale by sums over whole tensors
            assert counted <= 1 + len(tensors), f"{method}: one list of what is finite, and nothing else, is waited for"


def test_weights_that_the_model_holds_less_of_are_hashed_as_they_were_merged(toy, device):
    recipe = recipe_of("ties", toy, out_dtype="float32")
    sha256 = {place: merger_on(place, toy, torch.bfloat16).load(recipe) for place in ("cpu", str(device))}
    assert len({*sha256.values(), merger_on("cpu", toy).load(recipe)}) == 1


def test_a_member_and_what_only_mergekit_can_merge(toy, device):
    here, there = merger_on("cpu", toy), merger_on(str(device), toy)
    whole = {"merge_method": "passthrough", "models": [{"model": str(toy["a"])}], "dtype": "bfloat16"}
    for recipe in (MergeRecipe("parent", "a", whole, 0, {"model": "a"}), recipe_of("ties", toy, dtype="bfloat16")):
        assert there.load(recipe) == here.load(recipe)


def test_more_experts_than_sums_keep_in_order_are_merged_on_the_cpu(toy, device, monkeypatch):
    there, recipe = merger_on(str(device), toy), recipe_of("ties", toy)
    wanted = there.load(recipe)
    monkeypatch.setattr("nex_merge.merging.kernels.IN_ORDER", 1)
    monkeypatch.setattr("nex_merge.merging.kernels._sum_in_order", lambda rows: pytest.fail("not on the CPU"))
    assert there.load(recipe) == wanted


def test_a_tensor_that_is_not_finite_fails_the_trial(toy, device):
    weights = recipe_of("linear", toy, out_dtype="float16")
    weights.config["models"][0]["parameters"]["weight"] = 1e9
    weights.config["parameters"] = {"normalize": False}
    for place in ("cpu", str(device)):
        with pytest.raises(TrialError, match=r"the merged tensor .* is not finite"):
            merger_on(place, toy).load(weights)


def test_weights_are_hashed_while_the_model_does_something_else(toy, device, monkeypatch):
    """The next merge waits for the hash of the one before, which would read what is being overwritten."""
    there, may, one = merger_on(str(device), toy), threading.Event(), recipe_of("ties", toy)
    taken = hashing.tensor_digest

    def later(name, tensor):
        assert may.wait(30)
        return taken(name, tensor)

    monkeypatch.setattr(hashing, "tensor_digest", later)
    sha256 = there.begin(one)  # has returned, with nothing hashed
    threading.Timer(0.3, may.set).start()
    there.begin(recipe_of("linear", toy))
    assert may.is_set()
    monkeypatch.setattr(hashing, "tensor_digest", taken)
    assert sha256() == merger_on("cpu", toy).load(one)


def test_a_device_without_room_lets_go_of_its_copies(toy, device, monkeypatch):
    there, recipe = merger_on(str(device), toy), recipe_of("ties", toy)
    wanted = there.load(recipe)
    real, failed, freed, closed = torch.Tensor.isfinite, [], [], []

    def once(tensor):
        if not failed:
            failed.append(weakref.ref(tensor))
            raise torch.OutOfMemoryError("no room")
        freed.append(failed[0]() is None)
        return real(tensor)

    monkeypatch.setattr(torch.Tensor, "isfinite", once)
    monkeypatch.setattr(Workspace, "close", lambda self: closed.append(self))
    assert there.load(recipe) == wanted
    assert all(freed) and freed, "before it is tried again, what the first attempt has allocated is given back"
    assert len(closed) == 2, "masks are drawn for no merge that has ended"
    there._streamer.let_go()
    failed.clear()
    monkeypatch.setattr(there._streamer, "let_go", lambda: False)
    with pytest.raises(torch.OutOfMemoryError):
        there.load(recipe)


@pytest.mark.parametrize("place", ["cpu", "pretend"])
@pytest.mark.parametrize("method", METHODS)
def test_a_recipe_that_was_prepared_for_gives_the_same(toy, device, place, method):
    merger = merger_on(place if place == "cpu" else str(device), toy)
    recipe, other = recipe_of(method, toy), recipe_of("dare_ties", toy, seed=9)
    wanted = merger.load(recipe)
    merger.prepare(recipe)
    assert merger.load(recipe) == wanted
    merger.prepare(recipe)
    merger.prepare(other)  # it was not what came next
    assert merger.load(recipe) == wanted
    merger.prepare(MergeRecipe("merge", "none", {"merge_method": "none"}, 0))  # which fails when its turn comes
    assert merger.load(recipe) == wanted
