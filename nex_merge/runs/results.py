"""result.json, scores.json and reliability.json <-> records, for every released version's files.

Schema 1 is what version 0.1.0 wrote, without saying so: scores, text measures and "rivals" in mappings of their own,
and no figures of single responses. Keys that an older schema lacks mean their defaults.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nex_merge.errors import InputError
from nex_merge.records import (
    Estimate,
    NexScore,
    Observation,
    PhaseCounts,
    Reliability,
    TextFigures,
    TokenStats,
    TrialResult,
)
from nex_merge.runs import files

SCHEMA = 2
# The trial that version 0.1.0 began every search with.
_FIRST_MERGE = "0000"


@dataclass(frozen=True)
class Figures:
    """The figures of single responses that result.json holds beside the result."""

    stats: tuple[TokenStats, ...] | None = None
    phases: PhaseCounts | None = None
    text: TextFigures | None = None
    neurons: int | None = None


@dataclass(frozen=True)
class Scores:
    """scores.json: how the run's leaderboard is scored."""

    calibration: str
    rho: float
    min_run: int
    trials: Mapping[str, NexScore] = field(default_factory=dict)
    estimates: Mapping[str, Mapping[str, Estimate]] = field(default_factory=dict)  # by trial, then measure


def write_result(run: Path, result: TrialResult, observation: Observation | None = None) -> None:
    """Mark a trial as finished. What else belongs to it must be on disk already."""
    item = {"schema": SCHEMA, **dataclasses.asdict(result)}
    if observation is not None:
        item["figures"] = {
            "stats": None if observation.stats is None else [dataclasses.asdict(stat) for stat in observation.stats],
            "phases": _as_lists(observation.phases),
            "text": _as_lists(observation.text),
            "neurons": observation.neurons,
        }
    files.write_atomically(files.trial_folder(run, result.trial) / files.RESULT, json.dumps(item, indent=1))


def _as_lists(arrays: PhaseCounts | TextFigures | None) -> dict[str, list[Any]] | None:
    """NaN, which JSON does not have, becomes null."""
    if arrays is None:
        return None
    found = {item.name: getattr(arrays, item.name).tolist() for item in dataclasses.fields(arrays)}
    return {name: [None if value != value else value for value in values] for name, values in found.items()}


def read_result(run: Path, trial: str) -> tuple[TrialResult, Figures] | None:
    """What is known of a trial, or None where it is not finished. Raises InputError where the file can't be read."""
    path = files.trial_folder(run, trial) / files.RESULT
    if not path.is_file():
        return None
    item = files.read_json(path)
    check_schema(item, path)
    try:
        return (_from_first(item), Figures()) if item.get("schema", 1) == 1 else _from_second(item)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(
            f"{path}: is damaged ({type(error).__name__}: {error}). Remove the file, and the same search evaluates the "
            "trial again"
        ) from None


def check_schema(item: Mapping[str, Any], path: Path) -> None:
    """Refuse, with InputError, a file of a version newer than this one."""
    schema = item.get("schema", 1)
    if not isinstance(schema, int) or not 1 <= schema <= SCHEMA:
        raise InputError(
            f"{path}: expected schema 1 to {SCHEMA}, got {schema!r}: it was written by a newer nex-merge; upgrade to "
            "read it"
        )


def _from_second(item: Mapping[str, Any]) -> tuple[TrialResult, Figures]:
    known = _known(TrialResult, item)
    known["estimates"] = {name: _estimate(value) for name, value in known.get("estimates", {}).items()}
    known["score"] = None if known.get("score") is None else nex_score(known["score"])
    figures = item.get("figures") or {}
    stats, phases, text = figures.get("stats"), figures.get("phases"), figures.get("text")
    return TrialResult(**known), Figures(
        stats=None if stats is None else tuple(TokenStats(**_known(TokenStats, stat)) for stat in stats),
        phases=None if phases is None else _phase_counts(phases),
        text=None
        if text is None
        else TextFigures(**{name: np.array(text[name], float) for name in _names(TextFigures)}),
        neurons=figures.get("neurons"),
    )


def _text_figures(item: Mapping[str, Any]) -> TextFigures:
    return TextFigures(**{name: np.array(item[name], np.float64) for name in _names(TextFigures)})


def _phase_counts(item: Mapping[str, Any]) -> PhaseCounts:
    novelty = np.array([np.nan if value is None else value for value in item["novelty"]], np.float64)
    counts = {name: np.array(item[name], np.int64) for name in ("cycles", "explore", "phased")}
    return PhaseCounts(credited=np.array(item["credited"], bool), novelty=novelty, **counts)


def _from_first(item: Mapping[str, Any]) -> TrialResult:
    """A result as version 0.1.0 wrote it."""
    known = _known(TrialResult, item)
    score = item.get("score")
    known["score"] = None if score is None else nex_score(score)
    known["estimates"] = {} if score is None else estimates_of_first(score)
    for part in ("rivals", "text"):
        known["estimates"] |= {name: Estimate(value) for name, value in (item.get(part) or {}).items()}
    known["is_reference"] = item["trial"] == _FIRST_MERGE
    return TrialResult(**known)


def estimates_of_first(score: Mapping[str, Any]) -> dict[str, Estimate]:
    """The measures that a score of version 0.1.0 holds."""
    return {
        "nex": Estimate(score["nex"], score.get("low"), score.get("high"), score.get("beats_parent")),
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
    """The entries that a record has fields for."""
    return {name: value for name, value in item.items() if name in _names(kind)}


def write_scores(folder: Path, scores: Scores, reliability: Reliability) -> None:
    files.write_atomically(
        folder / files.SCORES, json.dumps({"schema": SCHEMA, **dataclasses.asdict(scores)}, indent=1)
    )
    content = {"schema": SCHEMA, **dataclasses.asdict(reliability)}
    files.write_atomically(folder / files.RELIABILITY, json.dumps(content, indent=1))


def read_scores(run: Path) -> Scores | None:
    """How the run's leaderboard is scored, or None before there is one."""
    path = run / files.SCORES
    if not path.is_file():
        return None
    item = files.read_json(path)
    check_schema(item, path)
    try:
        if item.get("schema", 1) == 1:
            estimates = {trial: estimates_of_first(score) for trial, score in item["trials"].items()}
        else:
            estimates = {
                trial: {name: _estimate(value) for name, value in found.items()}
                for trial, found in item["estimates"].items()
            }
        trials = {trial: nex_score(score) for trial, score in item["trials"].items()}
        return Scores(item["calibration"], item["rho"], item["min_run"], trials, estimates)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _damaged(path, error) from None


def read_reliability(run: Path) -> Reliability | None:
    """What the run's reliability.json says, or None before there is one."""
    path = run / files.RELIABILITY
    if not path.is_file():
        return None
    item = files.read_json(path)
    check_schema(item, path)
    try:
        known = _known(Reliability, item)
        return Reliability(**{**known, "reasons": tuple(known["reasons"]), "advice": tuple(known["advice"])})
    except (ValueError, TypeError, KeyError) as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(
        f"{path}: is damaged ({type(error).__name__}: {error}). Remove the file; `nex-merge rescore` writes it again"
    )
