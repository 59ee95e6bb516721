"""The files of docs/clusters.md: read by the shell, by a parser of YAML, and their settings by the configuration."""

import re
import shlex
import subprocess

import yaml

from nex_merge.setup.config import RuntimeConfig, override
from tests.pages import ROOT, blocks

FILES = {block.title: block.text for block in blocks(ROOT / "docs" / "clusters.md") if block.title}


def runtime(command):
    """What a search command sets of the runtime."""
    words = shlex.split(command)
    settings = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
    return RuntimeConfig.model_validate(override(settings)["runtime"])


def test_the_script_for_slurm(tmp_path):
    path = tmp_path / "search.sbatch"
    path.write_text(FILES["search.sbatch"])
    done = subprocess.run(["bash", "-n", path], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    command = re.search(r"^nex-merge search (.+) &$", FILES["search.sbatch"], re.MULTILINE)[1]
    assert runtime(command.replace("$address", "10.0.0.1:20007").replace("$workers", "8")).workers == 8


def test_the_manifest_for_kuberay():
    job = yaml.safe_load(FILES["rayjob.yaml"])
    cluster = job["spec"]["rayClusterSpec"]
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    pods = [group["template"]["spec"] for group in groups]
    gpus = [int(pod["containers"][0]["resources"]["limits"].get("nvidia.com/gpu", 0)) for pod in pods]
    assert runtime(job["spec"]["entrypoint"]).workers == sum(
        group.get("replicas", 1) * count for group, count in zip(groups, gpus, strict=True)
    )
    for pod in pods:  # the same place and the same environment on every node
        assert pod["volumes"] == pods[0]["volumes"]
        for key in ("image", "env", "volumeMounts"):
            assert pod["containers"][0][key] == pods[0]["containers"][0][key]
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    assert f"ray=={cluster['rayVersion']}" in pins
