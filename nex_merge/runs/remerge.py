"""A finished run's variants, made again from what its folder holds. Composes config, families and merging."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from nex_merge.runs import files
from nex_merge.setup.config import RunConfig, parse, read_yaml
from nex_merge.errors import InputError, RunError
from nex_merge.study.trial import load_tokenizer, resolve_device
from nex_merge.setup.families import Family, open_family
from nex_merge.merging import Merger, preflight, weights_dtype
from nex_merge.records import MergeRecipe, TrialResult


def opened_run(run: Path) -> tuple[RunConfig, Family]:
    """A run's configuration and family, as they were when it was begun. Raises InputError where `run` is none."""
    saved = read_yaml(run / files.CONFIG) if (run / files.CONFIG).is_file() else None
    if saved is None:
        raise InputError(f"{run}: no run folder (it has no {files.CONFIG}); the folder a search printed would do")
    resolved = saved.pop("resolved", {})
    config: RunConfig = parse(RunConfig, saved, str(run / files.CONFIG))
    # As it was read then: a family file that has changed since would make another model of the same tensors.
    named = config.family if isinstance(config.family, str) else "custom"
    family = open_family(resolved.get("family", config.family), config.models)
    return config, replace(family, name=Path(named).stem)


class Rebuilder:
    """The resident model of a run, for looking at its trials again."""

    def __init__(self, run: Path) -> None:
        import torch

        self.run = run
        self.config, self.family = opened_run(run)
        self.out_dtype = weights_dtype(preflight(self.family.folders, self.family.donor))
        self.tokenizer = load_tokenizer(self.family.folders[self.family.donor])
        device = resolve_device(self.config.runtime.device)
        chosen = self.config.runtime.dtype
        self.dtype = getattr(torch, ("float32" if device == "cpu" else self.out_dtype) if chosen == "auto" else chosen)
        self.merger = Merger(self.family.folders, self.family.donor, device, self.dtype)

    def recipe(self, result: TrialResult) -> MergeRecipe:
        config: dict[str, Any] = dict(files.read_recipe(self.run, result.trial))
        return MergeRecipe(result.kind, result.method, config, result.seed, result.parameters)

    def load(self, result: TrialResult) -> MergeRecipe:
        """Merge a trial again. Raises RunError where its tensors are not those that were scored."""
        recipe = self.recipe(result)
        found = self.merger.load(recipe)
        if found != result.weights_sha256:
            raise RunError(
                f"trial {result.trial}: merged again, its tensors are not those scored (sha256 {found[:12]} against "
                f"{(result.weights_sha256 or '-')[:12]}); the parents or the libraries have changed since"
            )
        return recipe
