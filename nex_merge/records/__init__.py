"""The frozen records that pass between stages. Read these first. NumPy only; no behaviour beyond trivial views.

In the order in which data flows: answers, activations, scores, spaces, runs.
"""

from nex_merge.records.activations import RESERVED_LAYER, SparseGroups, SparseRows, concatenate_groups
from nex_merge.records.answers import Prompt, Response, Rivals, TextMeasures, TokenStats
from nex_merge.records.runs import SCORES, Live, MergeRecipe, TrialResult
from nex_merge.records.scores import (
    Credit,
    Credits,
    Cycle,
    Evidence,
    NeuronWeights,
    NexScore,
    Novelty,
    Phases,
    Reliability,
    ResponseAnalysis,
)
from nex_merge.records.spaces import Dimension, MethodParameter, MethodSpec, SearchSpace

__all__ = [
    "RESERVED_LAYER",
    "SCORES",
    "Credit",
    "Credits",
    "Cycle",
    "Dimension",
    "Evidence",
    "Live",
    "MergeRecipe",
    "MethodParameter",
    "MethodSpec",
    "NeuronWeights",
    "NexScore",
    "Novelty",
    "Phases",
    "Prompt",
    "Reliability",
    "Response",
    "ResponseAnalysis",
    "Rivals",
    "SearchSpace",
    "SparseGroups",
    "SparseRows",
    "TextMeasures",
    "TokenStats",
    "TrialResult",
    "concatenate_groups",
]
