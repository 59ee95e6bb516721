"""What a node of a cluster has, held against what the search has; and the configuration of a cluster."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace

import pytest

from nex_merge.engines.transformers import FamilyEngine
from nex_merge.errors import InputError, RunError
from nex_merge.setup.config import RunConfig, RuntimeConfig, parse
from nex_merge.setup.families import open_family
from nex_merge.setup.resolve import resolve_config
from nex_merge.study.preflight import check
from nex_merge.study.proposal import passthrough
from nex_merge.workers import cluster, sessions
from nex_merge.workers.node_orders import hold_orders, let_go, remove_abandoned
from nex_merge.workers.nodes import facts, family_here, held_against, members
from nex_merge.workers.places import count_of, places
from tests.conftest import ROOT, toy_settings
from tests.engines.fakes import FakeEngine
from tests.workers.silent import silent_cluster


@pytest.fixture
def copied(toy, tmp_path):
    """A copy of the toy family, its search, and what a node is told of its members."""
    here = {name: shutil.copytree(folder, tmp_path / "here" / name) for name, folder in toy.items()}
    resolved = resolve_config(toy_settings(here, tmp_path / "run"))
    return here, resolved, members(resolved.family, resolved.resolved)


def test_the_same_family_is_found(copied):
    _, resolved, sought = copied
    assert family_here(sought) == replace(resolved.family, name="custom")


def test_recipes_of_the_search_name_what_a_node_has_elsewhere(copied, tmp_path):
    here, resolved, sought = copied
    recipe = passthrough("parent", "a", resolved.family.references["a"], "bfloat16")
    runtime = RuntimeConfig(device="cpu")
    sha256 = FamilyEngine(resolved.family, runtime).load(recipe)
    shutil.move(tmp_path / "here", tmp_path / "there")
    written = {name: {"path": str(tmp_path / "there" / name)} for name in here}
    base = written.pop("base")
    found = family_here(replace(sought, entry={"base": base, "models": written}, places={}))
    assert found.folders["a"] == tmp_path / "there" / "a" and not here["a"].exists()
    assert FamilyEngine(found, runtime).load(recipe) == sha256


def test_a_checkpoint_that_is_missing_on_a_node(copied):
    here, _, sought = copied
    shutil.rmtree(here["b"])
    with pytest.raises(InputError, match=rf"^runtime.cluster: {os.uname().nodename}: .*: b: .*{here['b']}.*shared"):
        family_here(sought)


@pytest.mark.parametrize(
    ("name", "said"), [("model.safetensors", "other weights"), ("config.json", "another config or tokenizer")]
)
def test_another_checkpoint_on_a_node(copied, toy, name, said):
    here, _, sought = copied
    path = here["a"] / name
    path.write_bytes((toy["b"] / name).read_bytes().replace(b'"use_cache": true', b'"use_cache": false'))
    with pytest.raises(InputError, match=rf"{os.uname().nodename}: a: {here['a']} has {said}"):
        family_here(sought)


def test_a_branch_of_the_hub_is_the_commit_that_the_search_has(toy, tmp_path):
    snapshot = tmp_path / "models--owner--a" / "snapshots" / ("0" * 40)
    shutil.copytree(toy["a"], snapshot)
    family = open_family({"base": str(toy["base"]), "models": {"a": str(snapshot)}}, None)
    entry = {"base": {"path": str(toy["base"])}, "models": {"a": {"path": "owner/a", "revision": "main"}}}
    found = members(family, {"family": entry, "checkpoints": {}, "settings": {}})
    assert found.entry["models"]["a"] == {"path": "owner/a", "revision": "0" * 40}
    assert found.entry["base"] == entry["base"]


@pytest.mark.parametrize("name", ["nex-merge", "mergekit", "torch", "transformers"])
def test_versions_that_results_depend_on_are_the_same_on_every_node(name):
    own = facts("here")
    other = replace(own, node="there", versions={**own.versions, name: "0.1"})
    with pytest.raises(InputError, match=re.escape(f"there has {name} 0.1, the search has {own.versions[name]};")):
        list(held_against(own.versions, other))


def test_versions_that_carry_values_are_told_of():
    own = facts("here")
    other = replace(own, node="there", versions={**own.versions, "numpy": "0.1"})
    assert list(held_against(own.versions, own)) == []
    assert list(held_against(own.versions, other)) == [f"there has numpy 0.1, the search has {own.versions['numpy']}"]


def test_another_vllm_is_told_of(monkeypatch):
    """Whether it is used, the engine on the node looks."""
    monkeypatch.setattr("nex_merge.workers.nodes.vllm_version", lambda: None)
    without = facts("there")
    monkeypatch.setattr("nex_merge.workers.nodes.vllm_version", lambda: "0.32.0")
    assert list(held_against(facts("here").versions, without)) == ["there has vllm None, the search has 0.32.0"]


HOLD = "import sys; from nex_merge.workers.node_orders import hold_orders; print(hold_orders('x'), flush=True); input()"


def test_orders_are_removed_when_nobody_has_them(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    folder = tmp_path / "nex-merge-orders-x"
    assert other.stdout.readline() == f"{folder}\n"
    assert hold_orders("x") == folder
    (folder / "a.ranks").touch()
    let_go()
    assert (folder / "a.ranks").exists()
    other.kill()
    other.communicate()
    remove_abandoned()
    assert not folder.exists()


def test_without_ray(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "find_spec", lambda name: None)
    settings = {**toy_settings(toy, tmp_path / "run"), "runtime": {"cluster": "ray"}}
    with pytest.raises(InputError, match=r"^runtime.cluster: 'ray' needs Ray; install nex-merge\[ray\]$"):
        check(resolve_config(settings))


@pytest.mark.parametrize(
    ("runtime", "said"),
    [
        ({"devices": ["cpu"]}, "runtime.devices: expected auto with runtime.cluster"),
        ({"workers": 3}, "runtime.workers: expected at most 2, got 3"),
        ({}, "engine: expected a class or a function"),
    ],
)
def test_what_no_cluster_can_do(toy, tmp_path, monkeypatch, runtime, said):
    monkeypatch.setattr(cluster, "find_spec", lambda name: name)
    settings = toy_settings(toy, tmp_path / "run")
    settings |= {"study": {"trials": 4, "parallel": 2}, "runtime": {"cluster": "auto", **runtime}}
    with pytest.raises(InputError, match=said):
        check(resolve_config(settings), engine=FakeEngine())


def test_what_cannot_be_killed_is_not_waited_for_for_ever(monkeypatch):
    """As a process that waits for a device in the kernel."""
    monkeypatch.setattr(sessions, "PATIENCE", 0.1)
    monkeypatch.setattr(os, "kill", lambda pid, number: None)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True) as one:
        sessions.end_session(one.pid)
        assert one.poll() is None


@pytest.mark.parametrize("workers", ["auto", None])
def test_how_many_a_cluster_has_room_for_is_not_known_before(workers):
    runtime = RuntimeConfig(device="cpu", cluster="auto", workers=workers)
    assert len(places(runtime, 8)) == 1  # of this process
    with pytest.raises(InputError, match=r"runtime.workers: expected a number with runtime.cluster"):
        count_of(runtime)


@pytest.mark.parametrize("address", ["ray", "auto", "10.0.0.1:6379", "head:6379", "[::1]:6379"])
def test_addresses(address):
    assert RuntimeConfig(cluster=address).cluster == address


@pytest.mark.parametrize("address", ["ray://head:10001", "head", "10.0.0.1:", ""])
def test_what_is_no_address(toy, tmp_path, address):
    settings = {**toy_settings(toy, tmp_path / "run"), "runtime": {"cluster": address}}
    with pytest.raises(InputError, match=r"runtime.cluster"):
        parse(RunConfig, settings, "x")


def test_a_cluster_without_room_is_waited_for_and_given_up(monkeypatch):
    monkeypatch.setattr(cluster, "TELLING", 0.0)
    with silent_cluster(monkeypatch) as (found, notes):
        assert [found.wait(print) for _ in range(3)] == [None] * 3
        assert list(found.places()) == list(found.ready()) == []
        assert notes == ["no worker has a node yet; waiting for room in the cluster"]
        monkeypatch.setattr(cluster, "ROOM", 0.0)
        with pytest.raises(RunError, match=r"no room for a worker .*; the same command goes on$"):
            found.wait(print)
