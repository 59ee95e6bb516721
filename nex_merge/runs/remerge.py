"""Merges variants of a finished run again."""

from nex_merge.engines.transformers import FamilyEngine
from nex_merge.errors import InputError, RunError
from nex_merge.records import MergeRecipe, TrialResult
from nex_merge.runs.asked import read_asked
from nex_merge.runs.files import trial_name
from nex_merge.runs.run import RunFolder
from nex_merge.setup.families import Family
from nex_merge.setup.fingerprints import settings_of


class Remerger:
    """A resident model that trials of a run are merged into again."""

    def __init__(self, run: RunFolder) -> None:
        self.run = run
        self.config, self.family = run.config, run.family()
        check_settings(run, self.family)
        self.engine = FamilyEngine(self.family, self.config.runtime)
        self.resident = self.engine.resident
        if (asked := read_asked(run.path)) is not None:
            self.engine.tell_time(asked.clock)

    def load(self, result: TrialResult) -> MergeRecipe:
        """Merge a trial again. Raises RunError if its tensors differ from those scored."""
        recipe = self.run.recipe(result)
        sha256 = self.engine.load(recipe)
        if sha256 != result.weights_sha256:
            raise RunError(
                f"{trial_name(result.trial)}: merged again, its tensors differ from those scored (SHA-256 "
                f"{sha256[:12]}, was {(result.weights_sha256 or '-')[:12]}): "
                "the parents or the libraries have changed since"
            )
        return recipe


def check_settings(run: RunFolder, family: Family) -> None:
    """Raise InputError if a member's config or tokenizer has changed since the run was started.

    Version 0.1.0 did not record them.
    """
    for name, files in run.resolved.get("settings", {}).items():
        current = settings_of(family.folders[name])
        changed = sorted(file for file in {*files, *current} if files.get(file) != current.get(file))
        if changed:
            raise InputError(
                f"{name}: {', '.join(changed)} in {family.folders[name]} changed since the run was started: it would "
                "no longer be what was scored. Put back the earlier version, or search again"
            )
