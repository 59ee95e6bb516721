"""One run folder as an object: its configuration, its trials, each result read once, and what is known of its pool."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nex_merge.activations.cache import read_base, read_cache, read_credits, read_manifest
from nex_merge.errors import InputError
from nex_merge.measures.estimates import Objective, objective_of
from nex_merge.nex.calibration import analyse, count_phases, stack_credits
from nex_merge.nex.scoring import score
from nex_merge.records import Credits, Evidence, MergeRecipe, Observation, Response, TrialResult, Variant
from nex_merge.runs import files, results
from nex_merge.runs.results import Figures, Scores
from nex_merge.setup.config import NexConfig, PhasesConfig, RunConfig, parse
from nex_merge.setup.families import Family, donor_folder, open_family

if TYPE_CHECKING:
    import pandas

# What config.yaml holds besides the configuration itself.
_BESIDES = ("schema", "study_name", "resolved")


class Run:
    """A run folder. Reading changes nothing; a search holds the folder's lock while it writes (see `custody`)."""

    def __init__(self, path: Path) -> None:
        """Raises InputError where `path` is no run folder, or one of a newer version."""
        self.path = Path(path)
        if not (self.path / files.CONFIG).is_file():
            raise InputError(
                f"{path}: not a run folder: it has no {files.CONFIG}. Give the folder that `nex-merge search` printed"
            )
        self._saved = files.read_yaml_mapping(self.path / files.CONFIG)
        results.check_schema(self._saved, self.path / files.CONFIG)
        self._results: dict[str, tuple[TrialResult, Figures]] = {}

    @cached_property
    def config(self) -> RunConfig:
        """The configuration as it was asked for; what an older version didn't know has its default."""
        asked = {name: value for name, value in self._saved.items() if name not in _BESIDES}
        return parse(RunConfig, asked, str(self.path / files.CONFIG))

    @property
    def schema(self) -> int:
        """Of config.yaml: 1 for a run begun by version 0.1.0."""
        return self._saved.get("schema", 1)

    @property
    def resolved(self) -> Mapping[str, Any]:
        """What the configuration's names stood for when the run was begun: family, space, checksums, versions."""
        return self._saved.get("resolved") or {}

    @property
    def study_name(self) -> str:
        """The name of the run's study in its storage. Version 0.1.0 took the folder's name at that time."""
        return self._saved.get("study_name") or Path(self._saved["output"]).resolve().name

    @cached_property
    def objective(self) -> Objective:
        return objective_of(self.config.study)

    def family(self) -> Family:
        """The family as it was when the run was begun: a family file that has changed since would make other models."""
        family = open_family(self.resolved.get("family", self.config.family), self.config.models)
        return replace(family, name=self.family_name)

    @property
    def tokenizer_folder(self) -> Path:
        """Where the tokenizer of the run's merges is; of a hub checkpoint, no weights are downloaded."""
        return donor_folder(self.resolved.get("family", self.config.family))

    @property
    def family_name(self) -> str:
        """What the configuration calls the family; "custom" where it holds the mapping itself."""
        return Path(self.config.family).stem if isinstance(self.config.family, str) else "custom"

    @property
    def baselines(self) -> int:
        """How many base and parents are scored: 0 where study.baselines is off."""
        models = self.config.models or self.resolved.get("family", {}).get("models", {})
        return 1 + len(models) if self.config.study.baselines else 0

    # Trials

    def results(self) -> list[TrialResult]:
        """All finished trials: base, parents, then merges by number. What is read once is not read again."""
        for folder in (self.path / files.TRIALS).glob("*"):
            if folder.name not in self._results and not folder.name.endswith(".partial"):
                self._read(folder.name)
        return sorted((result for result, _ in self._results.values()), key=_order)

    def begun(self) -> list[str]:
        """Trials that have a folder and no result: under way, or cut off."""
        names = sorted(path.name for path in (self.path / files.TRIALS).glob("*") if path.is_dir())
        finished = {result.trial for result in self.results()}
        return [name for name in names if name not in finished]

    def result(self, trial: str) -> TrialResult | None:
        """The result of a trial, or None where it is not finished."""
        found = self._read(trial)
        return found and found[0]

    def _read(self, trial: str) -> tuple[TrialResult, Figures] | None:
        if trial not in self._results:
            found = results.read_result(self.path, trial)
            if found is None:
                return None
            self._results[trial] = found
        return self._results[trial]

    def find(self, trial: str) -> TrialResult:
        """The result with this id; `7` stands for `0007`. Raises InputError where there is none."""
        wanted = files.trial_id(int(trial)) if trial.isdigit() else trial
        found = self.results()
        for result in found:
            if result.trial == wanted:
                return result
        raise InputError(f"trial {trial!r}: not in this run. Trials: {', '.join(r.trial for r in found) or 'none yet'}")

    def find_scored(self, trial: str) -> TrialResult:
        """The result with this id. Raises InputError where there is none, or it has no responses of its own."""
        result = self.find(trial)
        if result.score is None or result.state not in files.SCORED:
            told = f"it has the same recipe as {result.same_as}" if result.same_as else result.reason
            raise InputError(f"trial {result.trial} has no responses ({told})")
        return result

    def folder(self, trial: str) -> Path:
        return files.trial_folder(self.path, trial)

    def recipe(self, result: TrialResult) -> MergeRecipe:
        config = dict(files.read_recipe(self.path, result.trial))
        return MergeRecipe(result.kind, result.method, config, result.seed, result.parameters)

    def responses(self, trial: str) -> list[Response]:
        return files.read_responses(self.folder(trial))

    def write(self, result: TrialResult, observation: Observation | None = None) -> None:
        """Mark a trial as finished. What else belongs to it must be on disk already."""
        results.write_result(self.path, result, observation)
        self._results.pop(result.trial, None)

    # The pool

    def scoring(self) -> NexConfig:
        """How the run's leaderboard is scored: as last rescored, else as the search was set up."""
        scores = self.scores()
        if scores is None:
            return self.config.nex
        found = {"calibration": scores.calibration, "rho": scores.rho, "min_run": scores.min_run}
        return parse(NexConfig, found, str(self.path / files.SCORES))

    def scores(self) -> Scores | None:
        return results.read_scores(self.path)

    def variants(self, nex: NexConfig | None = None) -> list[Variant]:
        """Base, parents and merges that answered, in order, with what is known of them under `nex`'s phases."""
        nex = nex or self.config.nex
        return [self.variant(result, nex) for result in self.results() if result.state in files.SCORED]

    def variant(self, result: TrialResult, phases: PhasesConfig) -> Variant:
        """One trial with responses. Phases and credit that were found with other settings are found anew."""
        figures = self._results[result.trial][1]
        folder, own = self.folder(result.trial), self.config.nex
        responses = self.responses(result.trial)
        prompts = np.array([response.prompt for response in responses], np.int64)
        base = read_base(folder / files.CACHE)
        counts, found = figures.phases, result.score
        if (phases.rho, phases.min_run) != (own.rho, own.min_run):
            analyses = analyse(read_cache(folder / files.CACHE), phases.rho, phases.min_run)
            evidence = Evidence(prompts, base, stack_credits(analyses))
            counts = count_phases(analyses)
            found = found and score(evidence, analyses, "self")
        else:
            evidence = Evidence(prompts, base, self.credits(result.trial, phases))
        observation = Observation(
            responses, figures.stats, evidence, counts, figures.text, figures.neurons, seconds=result.seconds
        )
        recorded = {name: estimate.value for name, estimate in result.estimates.items()}
        return Variant(
            result.trial, result.kind, result.state == "complete", observation, result.is_reference, found, recorded
        )

    def credits(self, trial: str, phases: PhasesConfig) -> Credits:
        """The credit of a trial's responses: as kept, or found again where rho or min_run are others."""
        folder = self.folder(trial)
        manifest = read_manifest(folder / files.CREDIT)
        if manifest is not None and manifest["made_by"] == {"rho": phases.rho, "min_run": phases.min_run}:
            return read_credits(folder / files.CREDIT)
        return stack_credits(analyse(read_cache(folder / files.CACHE), phases.rho, phases.min_run))

    # What a Python user asks for

    @property
    def leaderboard(self) -> "pandas.DataFrame":
        """The ranking, best first, with every column of leaderboard.csv."""
        from nex_merge.runs.leaderboard import as_frame, read_rows

        return as_frame(read_rows(self))

    def trial(self, id: str | int) -> TrialResult:
        """A finished trial: `base`, a parent's name, or a merge's number. Raises InputError where there is none."""
        return self.find(str(id))

    def best(self) -> TrialResult:
        """The merge that ranks first. Raises InputError where no merge is complete."""
        from nex_merge.runs.leaderboard import best_merge

        return best_merge(self)

    def export(self, out: "str | Path", trial: str | int | None = None) -> Path:
        """Write a trial (the best merge unless given) as a checkpoint, checked against what was scored; its folder.

        Raises InputError where there is nothing to export or `out` is in use, RunError where the checkpoint would not
        be the variant that was scored.
        """
        from nex_merge.runs.export import export_trial

        for _ in export_trial(self, None if trial is None else str(trial), Path(out)):
            pass
        return Path(out)


def _order(result: TrialResult) -> tuple[int, int, str]:
    """Base, parents by name, merges by number."""
    number = int(result.trial) if result.kind == "merge" else 0
    return ("base", "parent", "merge").index(result.kind), number, result.trial


def complete(found: Sequence[TrialResult]) -> list[TrialResult]:
    """The trials that neither failed nor collapsed nor repeat another."""
    return [result for result in found if result.state == "complete"]
