"""The neuron-transfer experiment as a procedure: choose neurons, copy them, measure before and after.

It follows the "effective against redundant" neuron transfer of arXiv 2602.05805. What the paper leaves open, how
neurons are ranked and what random controls are matched on, is specified in `neuron_sets`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nex_merge.engines.observe import ObserveSettings
from nex_merge.engines.transformers import CheckpointEngine
from nex_merge.errors import InputError
from nex_merge.inspect.models import ModelConfig, configure, respond
from nex_merge.inspect.transfer.copying import check_pair, neuron_distances, neuron_norms, relative_change, transplanted
from nex_merge.inspect.transfer.neuron_sets import NeuronSet, choose_sets
from nex_merge.inspect.transfer.outcomes import Outcome, problem_counts
from nex_merge.labels.items import Item, builtin_items, judge, load_items
from nex_merge.nex.scoring import resampled, score
from nex_merge.records import Evidence, Prompt
from nex_merge.setup.config import PhasesConfig, PromptsConfig, parse
from nex_merge.setup.families import family_defaults, read_family
from nex_merge.wording import counted

Log = Callable[[str], None]
BUILTIN = "builtin"
BUILTIN_LIMIT = 64


class Pair(NamedTuple):
    """The models that neurons are copied from and into."""

    donor: CheckpointEngine
    recipient: CheckpointEngine


@dataclass(frozen=True)
class Problems:
    """Labelled problems to measure on; neurons are chosen without them."""

    items: Sequence[Item]
    prompts: PromptsConfig  # how they are encoded

    @property
    def kinds(self) -> list[str]:
        return [item.kind for item in self.items]


def read_settings(
    prompts: str, family: str | None, overrides: Mapping[str, Any], rho: float, min_run: int
) -> tuple[ModelConfig, ObserveSettings]:
    """(The settings of both models, how they answer and are scored by these): a family's defaults with `overrides`.

    Raises InputError if a setting is invalid.
    """
    defaults = {} if family is None else family_defaults(family)
    config = configure({**defaults, "prompts": {"file": prompts}}, overrides)
    phases = parse(PhasesConfig, {"rho": rho, "min_run": min_run}, "transfer")
    return config, ObserveSettings(config.generation, config.activations, phases)


def read_problems(data: str, match: str, limit: int | None, family: str | None, prompts: PromptsConfig) -> Problems:
    """The first `limit` labelled problems of a file, or `limit` held-out problems of each kind of qwen3-tiny."""
    if data == BUILTIN:
        if family is None:
            raise InputError("--data: 'builtin' requires --family, the family whose problems to use")
        items = builtin_items(read_family(family)[1], limit or BUILTIN_LIMIT, "--data builtin")
        return Problems(items, PromptsConfig(file=""))
    return Problems(load_items(Path(data), match)[:limit], prompts)


@dataclass(frozen=True)
class Transplant:
    """One set of neurons copied into the recipient, and the outcome."""

    chosen: NeuronSet
    changed: float  # see `relative_change`
    outcome: Outcome


@dataclass(frozen=True)
class Transfer:
    """All measurements of an experiment."""

    before: Outcome  # the unmodified recipient
    donor: Outcome
    transplants: Sequence[Transplant]


def collect_evidence(
    donor: CheckpointEngine, prompts: Sequence[Prompt], asked: PromptsConfig, settings: ObserveSettings
) -> Evidence:
    """Activation mass and credit of the donor's responses to the prompts."""
    evidence = respond(donor, prompts, asked, settings).evidence
    assert evidence is not None
    return evidence


def choose_neurons(
    pair: Pair,
    prompts: Sequence[Prompt],
    asked: PromptsConfig,
    settings: ObserveSettings,
    sets: Sequence[str],
    counts: Sequence[int],
    seeds: int,
    log: Log,
) -> list[NeuronSet]:
    """The neurons to copy, for every seed, count and set, from the donor's responses to unlabelled prompts.

    Raises InputError if neurons can't be copied between the models, or the donor has too few.
    """
    check_pair(pair.donor.resident.model, pair.recipient.resident.model)
    log(f"generating the donor's responses to {counted(len(prompts), 'prompt')}")
    evidence = collect_evidence(pair.donor, prompts, asked, settings)
    return choose_sets(evidence, neuron_norms(pair.donor.resident.model), sets, counts, seeds)


def transfer(
    pair: Pair, chosen: Sequence[NeuronSet], problems: Problems, settings: ObserveSettings, log: Log
) -> Transfer:
    """Measure both unmodified models, and the recipient with every set of neurons, restoring it after each."""
    before = measure(pair.recipient, problems, settings)
    log(f"recipient: {_describe(before)}")
    donor = measure(pair.donor, problems, settings)
    log(f"donor: {_describe(donor)}")
    distances, measured = neuron_distances(pair.donor.resident.model, pair.recipient.resident.model), []
    for done, item in enumerate(chosen, 1):
        with transplanted(pair.donor.resident.model, pair.recipient.resident.model, item.keys):
            outcome = measure(pair.recipient, problems, settings)
        log(f"[{done}/{len(chosen)}] {item.count} {item.neurons}, seed {item.seed}: {_describe(outcome)}")
        measured.append(Transplant(item, relative_change(distances, item.keys), outcome))
    return Transfer(before, donor, measured)


def measure(engine: CheckpointEngine, problems: Problems, settings: ObserveSettings) -> Outcome:
    """Greedy responses to the problems: correctness, length, entropy, and their NEX."""
    greedy = settings.generation.model_copy(update={"temperature": 0.0, "samples": 1})
    prompts = [item.prompt for item in problems.items]
    observed = respond(engine, prompts, problems.prompts, replace(settings, generation=greedy))
    responses, stats, evidence = observed.responses, observed.stats, observed.evidence
    assert stats is not None and evidence is not None and observed.analyses is not None
    nex = score(evidence, observed.analyses, "self")
    return Outcome(
        right=np.array(judge(problems.items, responses, problems.prompts.thinking)),
        tokens=np.array([len(response.token_ids) for response in responses]),
        entropy=np.array([item.entropy for item in stats]),
        truncated=np.array([response.truncated for response in responses]),
        nex=nex.nex,
        nex_drawn=resampled(evidence, nex.response_scores, "self", problem_counts(len(responses))),
    )


def _describe(outcome: Outcome) -> str:
    nex = "undefined" if outcome.nex is None else f"{outcome.nex:.3f}"
    right = int(outcome.right.sum())
    return f"{right} of {len(outcome.right)} correct, NEX {nex}, {outcome.tokens.mean():.0f} tokens"
