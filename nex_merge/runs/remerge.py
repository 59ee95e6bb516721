"""A finished run's variants, merged again from what its folder holds."""

from nex_merge.engines.transformers import FamilyEngine
from nex_merge.errors import RunError
from nex_merge.records import MergeRecipe, TrialResult
from nex_merge.runs.run import Run


class Remerger:
    """The resident model of a run, for looking at its trials again."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.config, self.family = run.config, run.family()
        self.engine = FamilyEngine(self.family, self.config.runtime)

    def load(self, result: TrialResult) -> MergeRecipe:
        """Merge a trial again. Raises RunError where its tensors are not those that were scored."""
        recipe = self.run.recipe(result)
        found = self.engine.load(recipe)
        if found != result.weights_sha256:
            raise RunError(
                f"trial {result.trial}: merged again, its tensors differ from those scored (SHA-256 {found[:12]}, was "
                f"{(result.weights_sha256 or '-')[:12]}): the parents or the libraries have changed since"
            )
        return recipe
