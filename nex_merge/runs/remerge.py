"""Merges variants of a finished run again."""

from nex_merge.engines.transformers import FamilyEngine
from nex_merge.errors import RunError
from nex_merge.records import MergeRecipe, TrialResult
from nex_merge.runs.run import Run


class Remerger:
    """A resident model that trials of a run are merged into again."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.config, self.family = run.config, run.family()
        self.engine = FamilyEngine(self.family, self.config.runtime)

    def load(self, result: TrialResult) -> MergeRecipe:
        """Merge a trial again. Raises RunError if its tensors differ from those scored."""
        recipe = self.run.recipe(result)
        sha256 = self.engine.load(recipe)
        if sha256 != result.weights_sha256:
            raise RunError(
                f"trial {result.trial}: merged again, its tensors differ from those scored (SHA-256 {sha256[:12]}, was "
                f"{(result.weights_sha256 or '-')[:12]}): the parents or the libraries have changed since"
            )
        return recipe
