"""Search mergekit recipes without labels: merges ranked by what their answers and neurons show.

    import nex_merge

    run = nex_merge.search("configs/qwen3_ties.yaml")      # or a mapping, or a RunConfig
    run.leaderboard                                        # a pandas DataFrame, best first
    run.export("best", trial=run.best().trial)             # a checkpoint, checked against what was scored

    nex_merge.open_run("results/qwen3_ties")               # an earlier run
    nex_merge.score("models/math", "prompts.jsonl")        # NEX of one model
    nex_merge.conclude("So it is 12.", "number")           # what a response concludes
    nex_merge.is_correct("So it is 12.", "12.0", "number") # whether that is the answer
    nex_merge.consensus({"a": ["1", "2"], "b": ["1", "3"]}) # models ranked by what they conclude
    nex_merge.nex                                          # the score itself, on caches of one's own

Nothing heavy is imported before it is used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nex_merge import nex
    from nex_merge.answers.conclusions import conclude, is_correct
    from nex_merge.api import Run, open_run, search
    from nex_merge.errors import InputError, NexMergeError, RunError
    from nex_merge.inspect.score import score
    from nex_merge.measures.ranking import consensus
    from nex_merge.setup.config import RunConfig
    from nex_merge.study.observers import Observer

__all__ = [
    "InputError",
    "NexMergeError",
    "Observer",
    "Run",
    "RunConfig",
    "RunError",
    "conclude",
    "consensus",
    "is_correct",
    "nex",
    "open_run",
    "score",
    "search",
]

_PLACES = {
    "InputError": "nex_merge.errors",
    "NexMergeError": "nex_merge.errors",
    "Observer": "nex_merge.study.observers",
    "Run": "nex_merge.api",
    "RunConfig": "nex_merge.setup.config",
    "RunError": "nex_merge.errors",
    "conclude": "nex_merge.answers.conclusions",
    "consensus": "nex_merge.measures.ranking",
    "is_correct": "nex_merge.answers.conclusions",
    "open_run": "nex_merge.api",
    "score": "nex_merge.inspect.score",
    "search": "nex_merge.api",
}


def __getattr__(name: str) -> Any:
    if name == "nex":
        return importlib.import_module("nex_merge.nex")
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
