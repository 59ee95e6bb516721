"""Accuracy on tasks of lm-evaluation-harness, which it asks of the resident merge itself: no checkpoint is written.

The only module that knows the library. Prompts are put as the search puts its own: by the chat template, with the
system prompt and thinking, as the run's `prompts` say; all else is as the task has it, and the figures are those that
`lm_eval run` finds on the exported merge. Of the model and its tokenizer nothing is changed.
"""

import copy
import difflib
import hashlib
import json
import logging
import os
import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np

from nex_merge.errors import InputError, RunError
from nex_merge.inert import one_line
from nex_merge.labels.lm_eval_results import joint_source, measurement_of, read_tasks, source_of
from nex_merge.runs.remerge import Remerger
from nex_merge.setup.hub_datasets import UNREACHED, hub_or_cache
from nex_merge.wording import counted

LONGEST_REASON = 300  # characters of a message of others
END_OF_THINKING = "</think>"
# lm-eval's own defaults, of Python's random numbers and of all others.
DEFAULT_RANDOM_SEED, DEFAULT_OTHER_SEED = 0, 1234
# What of a task's configuration decides how its answers are graded.
_GRADING = ("output_type", "metric_list", "filter_list", "process_results", "repeats")


class TaskGrader:
    """Grades variants on tasks. Made before a model is loaded, so that what is wrong with them is said at once."""

    def __init__(
        self, names: Sequence[str], include_path: Path | None, limit: int | None, note: Callable[[str], None]
    ) -> None:
        """`names`: tasks, groups or tags. `include_path`: a folder of further tasks. `limit`: problems of each task.

        Raises InputError if lm-eval is not installed, or a task is unknown or has no data here.
        """
        if find_spec("lm_eval") is None:
            raise InputError("--tasks: needs lm-evaluation-harness; install nex-merge[eval]")
        if not names:
            raise InputError("--tasks: expected names of tasks, separated by commas, got none")
        if include_path is not None and not include_path.is_dir():
            raise InputError(f"--include-path: expected a folder with tasks as YAML files, got {include_path}")
        self._limit, self._note = limit, note
        with _quiet(), hub_or_cache():
            self._loaded = _load(names, include_path)

    def prepare(self, remerger: Remerger) -> str:
        self._resident, self._prompts = remerger.resident, remerger.config.prompts
        # lm-eval gives it a padding token where it has none.
        self._tokenizer = copy.deepcopy(self._resident.tokenizer)
        thinks = self._prompts.chat_template and self._prompts.thinking
        self._end_of_thinking = self._tokenizer.get_vocab().get(END_OF_THINKING) if thinks else None
        self._batch = 1
        with _failing(), _quiet():
            lm = self._model()
            digests = {name: self._digest(task, lm) for name, task in self._tasks.items()}
            self._batch = self._fitting_batch(lm, remerger.config.generation.batch_tokens)
        self._sources = {
            name: source_of(name, self._limit, [version("lm_eval"), {leaf: digests[leaf] for leaf in leaves}])
            for name, leaves in self._leading().items()
        }
        return joint_source([*self._sources.values()])

    def grade(self) -> dict[str, Any]:
        import torch

        while True:
            try:
                results = self._evaluate()
                break
            except torch.OutOfMemoryError as error:
                if self._batch == 1:
                    raise RunError("--tasks: out of memory with a single prompt of the tasks") from error
                self._batch //= 2
                self._note(f"out of memory; {counted(self._batch, 'prompt')} at a time from now on")
        tasks = read_tasks({**results, "config": {"limit": self._limit}}, "--tasks")
        for name, record in tasks.items():
            record["source"] = self._sources[name]
        return measurement_of(tasks) | {
            "lm_eval": version("lm_eval"),
            "dtype": str(self._resident.dtype).removeprefix("torch."),
            "batch_size": self._batch,
        }

    @property
    def _tasks(self) -> Mapping[str, Any]:
        return self._loaded["tasks"]

    def _leading(self) -> dict[str, list[str]]:
        """The groups that lm-eval gives a figure, and the tasks that are in none of these, each with its tasks."""
        groups = [group for group in self._loaded["groups"].values() if group.has_aggregation]
        inner = {one.name for group in groups for one in group.get_all_groups()}
        found = {group.name: [task.task_name for task in group.get_all_tasks()] for group in groups}
        covered = {leaf for leaves in found.values() for leaf in leaves}
        outer = {name: leaves for name, leaves in found.items() if name not in inner}
        return outer | {name: [name] for name in self._tasks if name not in covered}

    def _model(self) -> Any:
        """The loaded variant as lm-eval asks one."""
        from lm_eval.models.huggingface import HFLM

        # Baselines run under configs of their own, so the resident model may be another object after every load.
        make: Any = HFLM  # whose metaclass hides its parameters from type checkers
        return make(
            pretrained=self._resident.model,
            tokenizer=self._tokenizer,
            batch_size=self._batch,
            chat_template_args={"enable_thinking": self._prompts.thinking},
            think_end_token=self._end_of_thinking,
        )

    def _asked(self) -> dict[str, Any]:
        """How prompts are put, as `evaluate` and tasks take it."""
        return {"system_instruction": self._prompts.system, "apply_chat_template": self._prompts.chat_template,
                "fewshot_as_multiturn": self._prompts.chat_template}  # fmt: skip

    def _digest(self, task: Any, lm: Any) -> str:
        """SHA-256 of all that a task asks, of its answers, and of how it grades."""
        _begin(task)
        template = lm.apply_chat_template if self._prompts.chat_template else None
        task.build_all_requests(limit=self._limit, chat_template=template, **self._asked())
        requests = [[one.request_type, one.args, task.doc_to_target(one.doc)] for one in task.instances]
        config = task.dump_config()
        grading = {key: config.get(key) for key in _GRADING}
        text = json.dumps([requests, grading, self._end_of_thinking], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()

    def _fitting_batch(self, lm: Any, budget: int | Literal["auto"]) -> int:
        """Prompts at a time, by the longest of them."""
        requests = [one for task in self._tasks.values() for one in task.instances]
        longest = 1
        for one in requests:
            generates = one.request_type == "generate_until"
            texts, options = (one.args[:1], one.args[1]) if generates else (one.args, {})
            answer = options.get("max_gen_toks", lm.max_gen_toks) if generates else 0
            # At least a character stands behind a token, so that few prompts have to be tokenized.
            if sum(map(len, texts)) + answer > longest:
                longest = max(longest, sum(len(lm.tok_encode(text)) for text in texts) + answer)
        scores = any(one.request_type != "generate_until" for one in requests)
        return self._resident.batch_size(longest, budget, scores)

    def _evaluate(self) -> dict[str, Any]:
        """What `lm_eval.simple_evaluate` does, without its report on this machine."""
        import torch
        from lm_eval.evaluator import evaluate

        for seed in (random.seed, np.random.seed, torch.manual_seed):
            seed(DEFAULT_RANDOM_SEED if seed is random.seed else DEFAULT_OTHER_SEED)
        for task in self._tasks.values():
            _begin(task)
        with _failing(), _quiet(progress=True):
            results: Any = evaluate(self._model(), self._loaded, limit=self._limit, **self._asked())
        samples = results.pop("samples")
        return {**json.loads(json.dumps(results, default=_plain)), "samples": samples}


def _begin(task: Any) -> None:
    """What `lm_eval.simple_evaluate` sets of a task before it is asked."""
    if task.get_config("num_fewshot") is None:
        task.set_config(key="num_fewshot", value=0)
    task.set_fewshot_seed(seed=DEFAULT_OTHER_SEED)


def _load(names: Sequence[str], include_path: Path | None) -> dict[str, Any]:
    """Tasks and groups by these names, with their data. Raises InputError naming the one that can't be had."""
    from lm_eval.tasks import TaskManager

    # Reading all of lm-eval's own tasks takes many seconds, and is of no use where the folder has what is asked for.
    manager = None if include_path is None else TaskManager(include_path=include_path, include_defaults=False)
    if manager is None or not set(names) <= {*manager.all_subtasks}:
        manager = TaskManager(include_path=include_path)
    loaded: dict[str, Any] = {"tasks": {}, "groups": {}, "group_map": {}}
    for name in names:
        if name not in manager.all_tasks:
            close = ", ".join(difflib.get_close_matches(name, manager.all_tasks, n=3))
            hint = f"Did you mean {close}?" if close else "lm_eval ls tasks lists lm-eval's, --include-path adds others"
            raise InputError(f"--tasks: unknown task {name!r}. {hint}")
        try:
            found = manager.load([name])
        except ConnectionError:
            raise InputError(f"--tasks: lm-eval can't load {name}: {UNREACHED}") from None
        except Exception as error:  # of the hub, of a library of data, or of a task's own code
            raise InputError(f"--tasks: lm-eval can't load {name}: {_reason(error)}") from error
        if twice := loaded["tasks"].keys() & found["tasks"].keys():
            raise InputError(f"--tasks: expected every task once, got {min(twice)} again in {name}")
        for kind, items in loaded.items():
            items |= found.get(kind, {})
    return loaded


@contextmanager
def _failing() -> Iterator[None]:
    """Raise RunError for whatever lm-eval or a task's own code raises, but for want of memory."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        raise RunError(f"--tasks: lm-eval failed: {_reason(error)}") from error


@contextmanager
def _quiet(progress: bool = False) -> Iterator[None]:
    """Without lm-eval's log, bars and prints; `progress`: with bars, on a terminal."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with open(os.devnull, "w", encoding="utf-8") as nowhere:
            shown = sys.stderr if progress and sys.stderr.isatty() else nowhere
            with redirect_stdout(nowhere), redirect_stderr(shown):
                yield
    finally:
        logger.setLevel(level)


def _reason(error: Exception) -> str:
    text = one_line(str(error))
    return f"{type(error).__name__}: {text[:LONGEST_REASON]}{'…' if len(text) > LONGEST_REASON else ''}"


def _plain(value: Any) -> Any:
    """NumPy's numbers as JSON has them, and anything else in words."""
    return value.item() if isinstance(value, np.generic) else str(value)
