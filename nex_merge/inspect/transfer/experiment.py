"""Neuron transfer from beginning to end, as numbered steps. Composes generation, capture, nex, choosing and copying.

Source of the question: "effective against redundant" neuron transfer in arXiv 2602.05805. What it leaves open here, how
neurons are ranked and what random ones have to match, is decided in `choosing`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from nex_merge.activations.capture import capture
from nex_merge.engines.checkpoint import Checkpoint
from nex_merge.generation import generate
from nex_merge.inspect.transfer.copying import check_pair, neuron_distances, neuron_norms, share_of_way, transplanted
from nex_merge.inspect.transfer.neuron_sets import Chosen, choose
from nex_merge.inspect.transfer.outcomes import Outcome, problem_counts
from nex_merge.labels.benchmark import Item, judge
from nex_merge.nex.calibration import analyse, stack_credits
from nex_merge.nex.scoring import resampled, score
from nex_merge.records import Evidence, Prompt, Response
from nex_merge.setup.config import ActivationsConfig, GenerationConfig, PromptsConfig
from nex_merge.setup.prompts import encode_prompts
from nex_merge.study.trial import check_context

Note = Callable[[str], None]


class Pair(NamedTuple):
    """Whose neurons are copied, and into what."""

    donor: Checkpoint
    recipient: Checkpoint


@dataclass(frozen=True)
class Settings:
    """How answers are made and scored."""

    prompts: PromptsConfig  # of the donor's prompts; problems are encoded in the same way
    generation: GenerationConfig
    activations: ActivationsConfig
    rho: float
    min_run: int

    def told(self) -> dict[str, Any]:
        """As a mapping, to be written down."""
        parts = {"prompts": self.prompts, "generation": self.generation, "activations": self.activations}
        return {**{name: part.model_dump() for name, part in parts.items()}, "rho": self.rho, "min_run": self.min_run}


@dataclass(frozen=True)
class Problems:
    """Labelled problems, of which no neuron is chosen."""

    items: Sequence[Item]
    prompts: PromptsConfig  # how they are encoded

    @property
    def kinds(self) -> list[str]:
        return [item.kind for item in self.items]


@dataclass(frozen=True)
class Transplant:
    """One set of neurons copied, and what the recipient does with them."""

    chosen: Chosen
    changed: float  # share of the donor's distance, see `share_of_way`
    outcome: Outcome


@dataclass(frozen=True)
class Transfer:
    """All that was measured."""

    before: Outcome  # the recipient as it is
    donor: Outcome
    transplants: Sequence[Transplant]


def choose_neurons(
    pair: Pair,
    prompts: Sequence[Prompt],
    settings: Settings,
    sets: Sequence[str],
    counts: Sequence[int],
    seeds: int,
    note: Note,
) -> list[Chosen]:
    """The neurons to copy, by the donor's answers to the unlabelled prompts. Raises InputError where they can't be."""
    # 1. Can they be copied at all?
    check_pair(pair.donor.model, pair.recipient.model)
    # 2. The donor answers the prompts; its neurons earn credit, self-calibrated.
    note(f"the donor answers {len(prompts)} prompts")
    evidence = answer_evidence(pair.donor, prompts, settings)
    # 3. The sets, for every seed and count.
    return choose(evidence, neuron_norms(pair.donor.model), sets, counts, seeds)


def transfer(pair: Pair, chosen: Sequence[Chosen], problems: Problems, settings: Settings, note: Note) -> Transfer:
    """Measure the recipient and the donor as they are, and the recipient with each set of neurons."""
    before = measure(pair.recipient, problems, settings)
    note(f"recipient as it is: {_told(before)}")
    giver = measure(pair.donor, problems, settings)
    note(f"donor: {_told(giver)}")
    found = []
    for done, item in enumerate(transplants(pair, chosen, problems, settings), 1):
        own = item.chosen
        note(f"[{done}/{len(chosen)}] {own.count} {own.neurons}, seed {own.seed}: {_told(item.outcome)}")
        found.append(item)
    return Transfer(before, giver, found)


def transplants(pair: Pair, chosen: Sequence[Chosen], problems: Problems, settings: Settings) -> Iterator[Transplant]:
    """The recipient measured with each set of neurons in turn; it is as before in the end."""
    donor, recipient = pair
    distances = neuron_distances(donor.model, recipient.model)
    for item in chosen:
        changed = share_of_way(distances, item.keys)
        with transplanted(donor.model, recipient.model, item.keys):
            outcome = measure(recipient, problems, settings)
        yield Transplant(item, changed, outcome)


def answer_evidence(donor: Checkpoint, prompts: Sequence[Prompt], settings: Settings) -> Evidence:
    """What the donor's answers to the prompts are worth, response by response."""
    ids = encode_prompts(prompts, donor.tokenizer, settings.prompts)
    check_context(ids, settings.generation.max_new_tokens, donor.model.config)
    responses = generate(donor.model, donor.tokenizer, ids, settings.generation)
    cache, _ = capture(donor.model, responses, settings.activations)
    analyses = analyse(cache, settings.rho, settings.min_run)
    return Evidence(_prompts(responses), cache.base, stack_credits(analyses))


def measure(checkpoint: Checkpoint, problems: Problems, settings: Settings) -> Outcome:
    """Greedy answers to the problems: right or not, their length, entropy, and the NEX of these answers."""
    ids = encode_prompts([item.prompt for item in problems.items], checkpoint.tokenizer, problems.prompts)
    greedy = settings.generation.model_copy(update={"temperature": 0.0, "samples": 1})
    check_context(ids, greedy.max_new_tokens, checkpoint.model.config)
    responses = generate(checkpoint.model, checkpoint.tokenizer, ids, greedy)
    cache, stats = capture(checkpoint.model, responses, settings.activations)
    analyses = analyse(cache, settings.rho, settings.min_run)
    evidence = Evidence(_prompts(responses), cache.base, stack_credits(analyses))
    found = score(evidence, analyses, "self")
    return Outcome(
        right=np.array(judge(problems.items, responses, problems.prompts.thinking)),
        tokens=np.array([len(response.token_ids) for response in responses]),
        entropy=np.array([item.entropy for item in stats]),
        truncated=np.array([response.truncated for response in responses]),
        nex=found.nex,
        nex_drawn=resampled(evidence, found.response_scores, "self", problem_counts(len(responses))),
    )


def _prompts(responses: Sequence[Response]) -> np.ndarray:
    return np.array([response.prompt for response in responses])


def _told(outcome: Outcome) -> str:
    nex = "undefined" if outcome.nex is None else f"{outcome.nex:.3f}"
    right = int(outcome.right.sum())
    return f"{right} of {len(outcome.right)} right, NEX {nex}, {outcome.tokens.mean():.0f} tokens"
