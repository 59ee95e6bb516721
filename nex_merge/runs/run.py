"""A run folder as an object: its configuration, its trials (each result read once), and its pool of variants."""

import difflib
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from nex_merge.activations.cache import dropped, read_base, read_cache, read_credits, read_manifest
from nex_merge.errors import InputError
from nex_merge.measures.estimates import Objective, objective_of
from nex_merge.measures.measure import Rules
from nex_merge.measures.text import text_figures
from nex_merge.nex.calibration import analyse, count_phases, stack_credits
from nex_merge.nex.scoring import score
from nex_merge.passwords import without_password
from nex_merge.records import (
    Credits,
    Evidence,
    MergeRecipe,
    Observation,
    Questions,
    Response,
    SparseRows,
    TrialResult,
    Variant,
)
from nex_merge.runs import files, results
from nex_merge.runs.changes import renamed
from nex_merge.runs.database import Database
from nex_merge.runs.questions import read_questions
from nex_merge.runs.results import Figures, Scores
from nex_merge.runs.seals import WAIT, Seals
from nex_merge.runs.written import CACHED, CREDITED, Written
from nex_merge.setup.config import SAVED_BESIDES, NexConfig, PhasesConfig, RunConfig, parse
from nex_merge.setup.families import Family, NoFolder, donor_folder, open_family
from nex_merge.setup.paths import command
from nex_merge.wording import counted

MOST = 20  # trials that a message lists

_logger = logging.getLogger(__name__)


class RunFolder:
    """A run folder. Reading changes nothing; a search holds the folder's lock while it writes (see `custody`)."""

    def __init__(
        self,
        path: Path,
        storage: str | None = None,
        host: "RunFolder | None" = None,
        note: Callable[[str], None] = _logger.warning,
    ) -> None:
        """`storage`: the URL of the study's database where config.yaml's lacks a password. `host`: the run of a final.

        `note` is told what of the folder can't be checked. Raises InputError if `path` is not a run folder, or is one
        of a newer version.
        """
        self.path, self._host, self._note = Path(path), host, note
        if not (self.path / files.CONFIG).is_file():
            why = f"it has no {files.CONFIG}" if self.path.is_dir() else "it is a file"
            why = why if self.path.exists() else "there is no such folder"
            raise InputError(f"{path}: not a run folder: {why}. Give the folder that `nex-merge search` printed")
        self._content = files.read_yaml_mapping(self.path / files.CONFIG)
        results.check_schema(self._content, self.path / files.CONFIG)
        study = self._content.get("study")
        kept = study.get("storage") if isinstance(study, dict) else None
        # Earlier versions kept the password: it is used, and shown nowhere.
        self.storage = storage if storage is not None else kept if isinstance(kept, str) else None
        if isinstance(study, dict) and isinstance(kept, str):
            self._content["study"] = {**study, "storage": without_password(kept)}
        self._results: dict[str, tuple[TrialResult, Figures]] = {}
        self._tokens: dict[str, int] = {}
        self._passed_over: set[str] = set()
        self.still_driven: Callable[[], None] = lambda: None  # set by the study's driver, for `check_driver`

    @cached_property
    def _saved(self) -> dict[str, Any]:
        """What config.yaml holds. Raises InputError naming the keys that were edited since it was written."""
        self.written.check_configuration(self._content)
        return self._content

    @cached_property
    def config(self) -> RunConfig:
        """The configuration as given; keys that an older version lacked have their defaults."""
        given = {name: value for name, value in self._saved.items() if name not in SAVED_BESIDES}
        return parse(RunConfig, given, str(self.path / files.CONFIG))

    @property
    def saved_text(self) -> str:
        """What config.yaml holds, without a password that an earlier version kept there."""
        return yaml.safe_dump(self._saved, sort_keys=False)

    @property
    def schema(self) -> int:
        """Schema of config.yaml: 1 for a run started by version 0.1.0."""
        return self._content.get("schema", 1)

    @property
    def resolved(self) -> Mapping[str, Any]:
        """What the configuration resolved to when the run was started: family, space, checksums, versions."""
        found = self._saved.get("resolved") or {}
        if not isinstance(found, dict):
            raise InputError(f"{self.path / files.CONFIG}: is damaged: resolved: expected a mapping. {files.RESTORE}")
        return found

    @property
    def votes(self) -> int:
        """The definition of consensus that its search was begun under; 1 where an older version kept none."""
        return self._content.get("votes", 1)

    @property
    def study_name(self) -> str:
        """The name of the run's study in its storage. Version 0.1.0 used the name of the folder."""
        return self._content.get("study_name") or Path(self._content.get("output", self.path)).resolve().name

    @cached_property
    def objective(self) -> Objective:
        return objective_of(self.config.study)

    def family(self) -> Family:
        """The family as of the start of the run, even if its file has changed since."""
        with self._whose_models_may_have_moved():
            family = open_family(self.resolved.get("family", self.config.family), self.config.models)
        return replace(family, name=self.family_name)

    @contextmanager
    def _whose_models_may_have_moved(self) -> Iterator[None]:
        """Say how a run is told where its models are now."""
        try:
            yield
        except NoFolder as error:
            again = command("search", self.path / files.CONFIG, "--trials", 0, "--family", "FILE")
            raise InputError(
                f"{error}. If the models were moved, say where they are once, in a file with base and models: {again} "
                "evaluates nothing again, and this command then finds them"
            ) from None

    @property
    def tokenizer_folder(self) -> Path:
        """The folder of the merges' tokenizer; for a hub checkpoint, no weights are downloaded."""
        with self._whose_models_may_have_moved():
            return donor_folder(self.resolved.get("family", self.config.family))

    def questions(self, audited: bool = True) -> Questions:
        """What is known of the prompts. `audited` False: without the labels of an audit, as a search sees them."""
        return read_questions(self.path, self.resolved, audited)

    def rules(self, nex: NexConfig | None = None, audited: bool = True) -> Rules:
        """What its measures go by. `nex`: other settings than the configuration's. `audited`: see `questions`."""
        return Rules(nex or self.config.nex, self.config.consensus, self.questions(audited))

    @property
    def family_name(self) -> str:
        """The family's name in the configuration; "custom" if it is given inline."""
        return Path(self.config.family).stem if isinstance(self.config.family, str) else "custom"

    @property
    def final(self) -> "RunFolder | None":
        """The run of the final, within this one; None unless it is over."""
        folder = self.path / files.FINAL
        return self.within(folder) if (folder / files.SCORES).is_file() else None

    def within(self, folder: Path) -> "RunFolder":
        """The run of a final in this one, whose study has the hashes of both."""
        return RunFolder(folder, host=self, note=self._note)

    @property
    def finalists(self) -> frozenset[str] | None:
        """The merges that can be picked, if this is the run of a final; else None."""
        chosen = self.resolved.get("finalists")
        return None if chosen is None else frozenset(chosen)

    def ranks(self, result: TrialResult) -> bool:
        """Whether its leaderboard has a row for a trial: in a final, merges that merely vote have none."""
        return self.finalists is None or result.kind != "merge" or result.is_reference or result.trial in self.finalists

    def _can_be_picked(self, result: TrialResult) -> bool:
        voting = self.finalists is not None and result.kind == "merge" and not result.is_reference
        return result.state == "complete" and (not voting or result.trial in (self.finalists or ()))

    @property
    def baselines(self) -> int:
        """Number of baselines (base and parents) to score; 0 if study.baselines is off."""
        models = self.config.models or self.resolved.get("family", {}).get("models", {})
        return 1 + len(models) if self.config.study.baselines else 0

    # Trials

    def results(self) -> list[TrialResult]:
        """All finished trials: base, parents, then merges by number. Each result is read once."""
        for name in self.folders():
            self._read(name)
        found = (result for result, _ in self._results.values())
        return sorted(found, key=lambda result: files.trial_order(result.kind, result.trial))

    def folders(self) -> list[str]:
        """The trials that have a folder. Others beside them, such as copies, are none, which is said once."""
        found: list[str] = []
        with suppress(FileNotFoundError), os.scandir(self.path / files.TRIALS) as entries:
            found = [entry.name for entry in entries if entry.is_dir()]  # a system call for all, not one for each
        trials = sorted(name for name in found if self._is_trial(name))
        others = sorted({*found} - {*trials} - self._passed_over)
        if shown := [name for name in others if not name.startswith(".") and not name.endswith(".partial")]:
            self._note(
                f"{self.path / files.TRIALS}: passed over {', '.join(map(repr, shown))}: a trial's folder is named "
                "base, as a model of the family, or by a number in four digits"
            )
        self._passed_over |= {*others}
        return trials

    def lost(self) -> list[str]:
        """Trials that were finished, by the study's hashes, and have no result: their files were removed."""
        return [name for name in self.written.trials() if not (self.folder(name) / files.RESULT).is_file()]

    def _is_trial(self, name: str) -> bool:
        """Whether a folder has the name of a member, or of a merge by its number."""
        if re.fullmatch("[0-9]+", name):
            return name == files.trial_id(int(name))
        models = (self.resolved.get("family") or {}).get("models")
        return re.fullmatch(r"[A-Za-z][\w-]*", name) is not None if models is None else name in {"base", *models}

    def begun(self) -> list[str]:
        """Trials that have a folder and no result: running or interrupted."""
        names = self.folders()
        finished = {result.trial for result in self.results()}
        return [name for name in names if name not in finished]

    def result(self, trial: str) -> TrialResult | None:
        """The result of a trial, or None if it is not finished."""
        entry = self._read(trial)
        return entry and entry[0]

    def _read(self, trial: str) -> tuple[TrialResult, Figures] | None:
        if trial not in self._results:
            self.written.check(trial, files.RESULT)
            entry = results.read_result(self.path, trial)
            if entry is None:
                return None
            self._results[trial] = entry
        return self._results[trial]

    def find(self, trial: str) -> TrialResult:
        """The result with this id; `7` means `0007`. Raises InputError if there is none."""
        wanted = files.trial_id(int(trial)) if trial.isdecimal() and len(trial) < 20 else trial
        results = self.results()
        for result in results:
            if result.trial == wanted:
                return result
        labels = [files.trial_label(result.trial) for result in results]
        close = difflib.get_close_matches(trial, labels, n=1)
        hint = f" Did you mean {close[0]!r}?" if close and not trial.isdigit() else ""
        if len(labels) > MOST:
            labels = [*labels[:MOST], f"and {len(labels) - MOST} more up to {labels[-1]}"]
        raise InputError(f"trial {trial!r}: not in this run.{hint} Trials: {', '.join(labels) or 'none yet'}")

    def find_scored(self, trial: str) -> TrialResult:
        """The result with this id. Raises InputError if there is none, it has no responses, or was not captured."""
        result = self.find(trial)
        if result.state not in files.SCORED:
            why = f"it has the same recipe as {files.trial_name(result.same_as)}" if result.same_as else result.reason
            raise InputError(f"{files.trial_name(result.trial)} has no responses ({why})")
        if result.score is None:
            fill = command("rescore", self.path, "--capture", files.trial_label(result.trial))
            name = files.trial_name(result.trial)
            raise InputError(f"{name}: its activations were not captured. Capture them: {fill}")
        return result

    def folder(self, trial: str) -> Path:
        return files.trial_folder(self.path, trial)

    def recipe(self, result: TrialResult) -> MergeRecipe:
        config = self.recipe_config(result.trial)
        return MergeRecipe(result.kind, result.method, config, result.seed, result.parameters)

    def recipe_config(self, trial: str) -> dict[str, Any]:
        """The mergekit configuration of a trial, with members that were moved since named by where they are now.

        Raises InputError if the file is missing or damaged.
        """
        self.written.check(trial, files.RECIPE)
        moved = {place: places[0] for places in self.resolved.get("places", {}).values() for place in places[1:]}
        return renamed(files.read_recipe(self.path, trial), moved)

    def responses(self, trial: str) -> list[Response]:
        """The responses of a trial. Raises InputError if there is no such trial, or its files are damaged."""
        if not self.folder(trial).is_dir() and trial not in self.lost():
            trial = self.find(trial).trial
        if (self.folder(trial) / files.RESULT).is_file():  # else they are still being written
            self.written.check(trial, files.RESPONSES)
        return files.read_responses(self.folder(trial))

    def tokens(self, result: TrialResult) -> int:
        """The tokens that a trial generated: as recorded, else those of the responses on disk, if there are any."""
        if result.tokens is not None:
            return result.tokens
        if result.trial not in self._tokens:
            has_responses = (self.folder(result.trial) / files.RESPONSES).is_file()
            responses = self.responses(result.trial) if has_responses else []
            self._tokens[result.trial] = sum(len(response.token_ids) for response in responses)
        return self._tokens[result.trial]

    def logprobs(self, trial: str) -> list[float]:
        """Mean log-probability of the tokens of each response of a trial, as recorded, nats; none if not captured."""
        self.find(trial)
        return [stats.logprob for stats in self._results[trial][1].stats or ()]

    def damaged(self) -> dict[str, str]:
        """Finished trials that lack files which a search or `rescore` reads: trial -> what is missing."""
        found = {}
        for path in (self.path / files.TRIALS).glob("*"):
            if path.is_file() and self._is_trial(path.name):
                raise InputError(f"{path}: expected the folder of {files.trial_name(path.name)}, got a file. Remove it")
        for trial in self.folders():
            try:
                result = self.result(trial)
                if result is None:
                    continue
                self.recipe(result)
                if result.state in files.SCORED:
                    self.variant(result, self.config.nex)
                    if result.score is not None and self.why_dropped(trial) is None:
                        read_cache(self.folder(trial) / files.CACHE)
            except InputError as error:
                found[trial] = str(error)
        return found

    def discard(self, trial: str) -> None:
        """Make a trial unfinished, so that the search evaluates it again."""
        (self.folder(trial) / files.RESULT).unlink()
        self._results.pop(trial, None)
        self.written.forget(trial)

    def write(self, result: TrialResult, observation: Observation | None = None) -> None:
        """Mark a trial as finished. Its other files must be on disk already."""

        def seal(digest: str) -> None:
            self.written.seal(result.trial, digest)

        self.check_driver()
        results.write_result(self.path, result, observation, seal)
        self._results.pop(result.trial, None)

    def check_driver(self) -> None:
        """Before something of a trial is kept: raise RunError if another search has taken the study over meanwhile."""
        (self._host or self).still_driven()

    @cached_property
    def written(self) -> Written:
        """Whether what is read is what was written."""
        if self._host is not None:
            return Written(self.path, self._host.written.seals, self._note, self.path.name)

        @cache  # a server's connection serves every step; an SQLite file is opened anew for each
        def connect(read_only: bool) -> Database:
            return Database(self.storage, self.path, lambda text: None, WAIT, read_only)

        return self._by(connect)

    def _by(self, connect: Callable[[bool], Database]) -> Written:
        """What the study in a database says was written."""

        def unreached(why: str) -> None:
            self._note(
                f"{self.path}: the hashes of its files can't be read; caches are checked by their own manifests. {why}"
            )

        return Written(self.path, Seals(connect, self.study_name, unreached), self._note)

    def keep_hashes_in(self, database: Database) -> None:
        """Let a search's own database, for which it waits, say what was written."""
        self.written = self._by(lambda read_only: database)

    def seal_final(self, folder: Path, content: Mapping[str, Any]) -> None:
        """Add the hashes of the config.yaml of a final in this run, which comes to be written."""
        Written(folder, self.written.seals, self._note, folder.name).seal_configuration(content)

    def keep_missing_hashes(self) -> None:
        """Add hashes of config.yaml, and of finished trials of which the study has none, as of earlier versions'."""
        self.written.check_configuration(self._content)
        self.written.seal_configuration(self._content)
        for result in self.results():
            if not self.written.versions(result.trial):
                self.written.seal(result.trial)
        if (final := self.final) is not None:
            final.keep_missing_hashes()

    # The pool

    def scoring(self) -> NexConfig:
        """The NEX settings of the current scores: those of the last rescoring, else the configuration's."""
        scores = self.scores()
        if scores is None:
            return self.config.nex
        settings = {"calibration": scores.calibration, "rho": scores.rho, "min_run": scores.min_run}
        return parse(NexConfig, settings, str(self.path / files.SCORES))

    def scores(self) -> Scores | None:
        return results.read_scores(self.path)

    def variants(self, nex: NexConfig | None = None) -> list[Variant]:
        """Base, parents and merges with responses, in order, with phases as in `nex` (default: the configuration's)."""
        nex = nex or self.config.nex
        scored = [result for result in self.results() if result.state in files.SCORED]
        if self._is_other(nex):
            self._check_rows([result.trial for result in scored])
        return [self.variant(result, nex) for result in scored]

    def _is_other(self, phases: PhasesConfig) -> bool:
        """Whether phases are others than the configuration's, whose credit is stored: they are found in the rows."""
        return (phases.rho, phases.min_run) != (self.config.nex.rho, self.config.nex.min_run)

    def variant(self, result: TrialResult, phases: PhasesConfig) -> Variant:
        """One trial with responses. Phases and credit are recomputed if `phases` differs from the configuration.

        Raises InputError if files of the trial are missing or truncated.
        """
        figures = self._results[result.trial][1]
        folder = self.folder(result.trial)
        responses = self.responses(result.trial)
        text = figures.text or text_figures(responses)  # version 0.1.0 kept none
        recorded = {name: estimate.value for name, estimate in result.estimates.items()}
        about = Variant(
            trial=result.trial,
            kind=result.kind,
            complete=self._can_be_picked(result),
            observation=Observation(responses, text=text, seconds=result.seconds),
            is_reference=result.is_reference,
            score=result.score,
            recorded=recorded,
            lost_to=result.lost_to,
        )
        if result.score is None:  # not captured
            return about
        prompts = np.array([response.prompt for response in responses], np.int64)
        self.written.check(result.trial, CACHED)
        base = read_base(folder / files.CACHE)
        if len(responses) != len(base.ptr) - 1:
            raise InputError(
                f"{folder / files.RESPONSES}: expected {counted(len(base.ptr) - 1, 'response')}, as in "
                f"{files.CACHE}, got "
                f"{len(responses)}. {files.AGAIN}"
            )
        counts, nex_score = figures.phases, result.score
        if self._is_other(phases):
            analyses = analyse(self.rows(result.trial), phases.rho, phases.min_run)
            evidence = Evidence(prompts, base, stack_credits(analyses))
            counts = count_phases(analyses)
            nex_score = nex_score and score(evidence, analyses, "self")
        else:
            evidence = Evidence(prompts, base, self.credits(result.trial, phases))
        observation = Observation(
            responses,
            figures.stats,
            evidence,
            counts,
            text,
            figures.neurons,
            seconds=result.seconds,
        )
        return replace(about, observation=observation, score=nex_score)

    def credits(self, trial: str, phases: PhasesConfig) -> Credits:
        """The credit of a trial's responses: as stored, or recomputed if rho or min_run differ."""
        try:
            if (stored := self.stored_credits(trial, phases)) is not None:
                return stored
        except InputError as error:
            if self.why_dropped(trial) is None:
                self._note(f"{error}; until then, other commands do")
        self._check_rows([trial], f"{self.folder(trial) / files.CREDIT} is missing or damaged, and ")
        return stack_credits(analyse(self.rows(trial), phases.rho, phases.min_run))

    def stored_credits(self, trial: str, phases: PhasesConfig) -> Credits | None:
        """The credit in a trial's folder; None if there is none for these settings. Raises InputError for damage."""
        self.written.check(trial, CREDITED)
        manifest = read_manifest(self.folder(trial) / files.CREDIT)
        if manifest is None or manifest.get("made_by") != {"rho": phases.rho, "min_run": phases.min_run}:
            return None
        return read_credits(self.folder(trial) / files.CREDIT)

    # Activations row by row, which `activations.keep` and `nex-merge clean` remove.

    def why_dropped(self, trial: str) -> str | None:
        """What removed the rows of a trial's activations; None if they are there, or are missing for no reason."""
        return dropped(self.folder(trial) / files.CACHE)

    def rows(self, trial: str) -> SparseRows:
        """The activations of a captured trial. Raises InputError if its rows were dropped, or files are damaged."""
        self._check_rows([trial])
        self.written.check(trial, CACHED)
        return read_cache(self.folder(trial) / files.CACHE)

    def _check_rows(self, trials: Sequence[str], besides: str = "") -> None:
        """Raise InputError naming those of the trials whose rows were dropped, and the command that restores them."""
        why = {trial: found for trial in trials if (found := self.why_dropped(trial)) is not None}
        if not why:
            return
        names = [files.trial_name(trial) for trial in why]
        named = names[0] if len(names) == 1 else f"{', '.join(names[:MOST])}{' and others' * (len(names) > MOST)}"
        run = self.path if self._host is None else self._host.path
        again = command("rescore", run, "--capture", files.trial_label(next(iter(why))) if len(why) == 1 else "all")
        raise InputError(
            f"{besides}{named}: the activations were not kept ({', '.join(dict.fromkeys(why.values()))}). Capture them "
            f"again: {again}"
        )
