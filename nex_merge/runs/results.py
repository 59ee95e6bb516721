"""result.json, scores.json and reliability.json <-> records, for every released version's files.

Schema 1 is that of version 0.1.0, which has no `schema` key: scores, text measures and other measures ("rivals") in
separate mappings, and no per-response figures. Keys that an older schema lacks have their defaults.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nex_merge.errors import InputError
from nex_merge.measures.advice import advice_of
from nex_merge.records import (
    Estimate,
    NexScore,
    Observation,
    PhaseCounts,
    Reliability,
    TextFigures,
    TokenStats,
    TrialResult,
    Verdict,
)
from nex_merge.runs import files

SCHEMA = 2
# The merge with equal weights, which version 0.1.0 started every search with.
_FIRST_MERGE = "0000"
_CHECKSUM = "sha256"


@dataclass(frozen=True)
class Figures:
    """The per-response figures in result.json, beside the result."""

    stats: tuple[TokenStats, ...] | None = None
    phases: PhaseCounts | None = None
    text: TextFigures | None = None
    neurons: int | None = None


@dataclass(frozen=True)
class Scores:
    """scores.json: the run's current scores and the settings they were computed with."""

    calibration: str
    rho: float
    min_run: int
    trials: Mapping[str, NexScore] = field(default_factory=dict)
    estimates: Mapping[str, Mapping[str, Estimate]] = field(default_factory=dict)  # by trial, then measure


def write_result(
    run: Path,
    result: TrialResult,
    observation: Observation | None = None,
    announce: Callable[[str], None] = lambda digest: None,
) -> None:
    """Mark a trial as finished. Its other files must be on disk already. `announce` is told the SHA-256 before."""
    item = {"schema": SCHEMA, **dataclasses.asdict(result)}
    if observation is not None:
        item["figures"] = {
            "stats": None if observation.stats is None else [dataclasses.asdict(stat) for stat in observation.stats],
            "phases": _as_lists(observation.phases),
            "text": _as_lists(observation.text),
            "neurons": observation.neurons,
        }
    text = json.dumps(item, indent=1)
    # A process that is killed in between leaves a trial that is not finished.
    announce(hashlib.sha256(text.encode()).hexdigest())
    files.write_atomically(files.trial_folder(run, result.trial) / files.RESULT, text)


def _as_lists(arrays: PhaseCounts | TextFigures | None) -> dict[str, list[Any]] | None:
    """The arrays as lists, NaN as null."""
    if arrays is None:
        return None
    lists = {item.name: getattr(arrays, item.name).tolist() for item in dataclasses.fields(arrays)}
    return {name: [None if value != value else value for value in values] for name, values in lists.items()}


def read_result(run: Path, trial: str) -> tuple[TrialResult, Figures] | None:
    """A trial's result and figures, or None if it is not finished. Raises InputError if the file can't be read."""
    path = files.trial_folder(run, trial) / files.RESULT
    if not path.is_file():
        return None
    item = files.read_json(path, files.AGAIN)
    check_schema(item, path)
    try:
        found = (_from_first(item), Figures()) if item.get("schema", 1) == 1 else _from_second(item)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{path}: is damaged ({type(error).__name__}: {error}). {files.AGAIN}") from None
    if found[0].trial != trial:
        raise InputError(f"{path}: is that of {files.trial_name(str(found[0].trial))}. {files.AGAIN}")
    return found


def check_schema(item: Mapping[str, Any], path: Path) -> None:
    """Raise InputError if a file was written by a newer version."""
    schema = item.get("schema", 1)
    if not isinstance(schema, int):
        raise InputError(f"{path}: is damaged: schema: expected a number, got {schema!r}. {files.RESTORE}")
    if not 1 <= schema <= SCHEMA:
        raise InputError(
            f"{path}: expected schema 1 to {SCHEMA}, got {schema!r}: it was written by a newer nex-merge; upgrade to "
            "read it"
        )


def _from_second(item: Mapping[str, Any]) -> tuple[TrialResult, Figures]:
    fields = _known(TrialResult, item)
    fields["estimates"] = {name: _estimate(value) for name, value in fields.get("estimates", {}).items()}
    fields["score"] = None if fields.get("score") is None else nex_score(fields["score"])
    figures = item.get("figures") or {}
    stats, phases, text = figures.get("stats"), figures.get("phases"), figures.get("text")
    return TrialResult(**fields), Figures(
        stats=None if stats is None else tuple(TokenStats(**_known(TokenStats, stat)) for stat in stats),
        phases=None if phases is None else _phase_counts(phases),
        text=None if text is None else _text_figures(text),
        neurons=figures.get("neurons"),
    )


def _text_figures(item: Mapping[str, Any]) -> TextFigures:
    return TextFigures(**{name: np.array(item[name], np.float64) for name in _names(TextFigures)})


def _phase_counts(item: Mapping[str, Any]) -> PhaseCounts:
    novelty = np.array([np.nan if value is None else value for value in item["novelty"]], np.float64)
    counts = {name: np.array(item[name], np.int64) for name in ("cycles", "explore", "phased")}
    return PhaseCounts(credited=np.array(item["credited"], bool), novelty=novelty, **counts)


def _from_first(item: Mapping[str, Any]) -> TrialResult:
    """A result in schema 1."""
    fields = _known(TrialResult, item)
    score = item.get("score")
    fields["score"] = None if score is None else nex_score(score)
    fields["estimates"] = {} if score is None else estimates_of_first(score)
    for part in ("rivals", "text"):
        fields["estimates"] |= {name: Estimate(value) for name, value in (item.get(part) or {}).items()}
    fields["is_reference"] = item["trial"] == _FIRST_MERGE
    return TrialResult(**fields)


def estimates_of_first(score: Mapping[str, Any]) -> dict[str, Estimate]:
    """The measures in a score of schema 1. Its odds were not corrected for selection, so they are left out."""
    return {
        "nex": Estimate(score["nex"], score.get("low"), score.get("high")),
        "log_gap": Estimate(score["log_gap"]),
        "explore_share": Estimate(score["explore_share"]),
        "cycles_per_response": Estimate(score["cycles"] / max(score["responses"], 1)),
        "weighted_mass": Estimate(score.get("weighted_mass")),
        "saturation": Estimate(score.get("saturation")),
    }


def nex_score(item: Mapping[str, Any]) -> NexScore:
    return NexScore(**{**_known(NexScore, item), "response_scores": tuple(item["response_scores"])})


def _estimate(item: Mapping[str, Any]) -> Estimate:
    return Estimate(**_known(Estimate, item))


def _names(kind: Any) -> set[str]:
    return {item.name for item in dataclasses.fields(kind)}


def _known(kind: Any, item: Mapping[str, Any]) -> dict[str, Any]:
    """The entries that are fields of a record."""
    return {name: value for name, value in item.items() if name in _names(kind)}


def write_scores(folder: Path, scores: Scores, reliability: Reliability) -> None:
    for name, fields in ((files.SCORES, dataclasses.asdict(scores)), (files.RELIABILITY, _fields_of(reliability))):
        content = {"schema": SCHEMA, **fields}
        files.write_atomically(folder / name, json.dumps({**content, _CHECKSUM: _checksum(content)}, indent=1))


def _fields_of(reliability: Reliability) -> dict[str, Any]:
    """The fields of reliability.json; of advice, its text."""
    fields = dataclasses.asdict(reliability)
    for part in (fields, *fields["verdicts"].values()):
        part["advice"] = [advice["text"] for advice in part["advice"]]
    return fields


def _checksum(content: Mapping[str, Any]) -> str:
    """SHA-256 of what a file holds beside its checksum."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _read_checked(path: Path) -> dict[str, Any]:
    """A file that `rescore` writes. Raises InputError if it was edited since, or is damaged."""
    item = files.read_json(path)
    check_schema(item, path)
    checksum = item.pop(_CHECKSUM, None)  # earlier versions wrote none
    if checksum is not None and checksum != _checksum(item):
        raise InputError(f"{path}: was edited or damaged since it was written; `nex-merge rescore` writes it again")
    return item


def read_scores(run: Path) -> Scores | None:
    """The run's current scores, or None before it is scored."""
    path = run / files.SCORES
    if not path.is_file():
        return None
    item = _read_checked(path)
    try:
        if item.get("schema", 1) == 1:
            estimates = {trial: estimates_of_first(score) for trial, score in item["trials"].items()}
        else:
            estimates = {
                trial: {name: _estimate(value) for name, value in values.items()}
                for trial, values in item["estimates"].items()
            }
        trials = {trial: nex_score(score) for trial, score in item["trials"].items()}
        return Scores(item["calibration"], item["rho"], item["min_run"], trials, estimates)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _damaged(path, error) from None


def read_reliability(run: Path) -> Reliability | None:
    """The run's reliability.json, or None before it is scored."""
    path = run / files.RELIABILITY
    if not path.is_file():
        return None
    item = _read_checked(path)
    try:
        fields = _known(Reliability, item)
        found = Reliability(**_listed(fields))
        verdicts = {name: Verdict(**_listed(_known(Verdict, v))) for name, v in item.get("verdicts", {}).items()}
        # Version 0.1.0 judged NEX alone.
        verdicts.setdefault("nex", Verdict(found.verdict, found.reasons, found.advice))
        return dataclasses.replace(found, verdicts=verdicts)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _damaged(path, error) from None


def _listed(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of a verdict, with its reasons and advice as records have them."""
    return {**fields, "reasons": tuple(fields["reasons"]), "advice": tuple(map(advice_of, fields["advice"]))}


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(
        f"{path}: is damaged ({type(error).__name__}: {error}). Remove the file; `nex-merge rescore` writes it again"
    )
