"""The frozen records that pass between stages. Read these first. NumPy only; no behaviour beyond trivial views.

In the order of data flow: answers, activations, scores, observations, spaces, runs.
"""

from nex_merge.records.activations import RESERVED_LAYER, SparseGroups, SparseRows, concatenate_groups
from nex_merge.records.answers import Prompt, Response, TextFigures, TokenStats
from nex_merge.records.observations import Estimate, Observation, PhaseCounts, Questions, Variant
from nex_merge.records.runs import Live, LiveWorker, MergeRecipe, Stint, TrialResult
from nex_merge.records.scores import (
    Action,
    Advice,
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
    Verdict,
)
from nex_merge.records.spaces import Dimension, MethodParameter, MethodSpec, SearchSpace

__all__ = [
    "RESERVED_LAYER",
    "Action",
    "Advice",
    "Credit",
    "Credits",
    "Cycle",
    "Dimension",
    "Estimate",
    "Evidence",
    "Live",
    "LiveWorker",
    "MergeRecipe",
    "MethodParameter",
    "MethodSpec",
    "NeuronWeights",
    "NexScore",
    "Novelty",
    "Observation",
    "PhaseCounts",
    "Phases",
    "Prompt",
    "Questions",
    "Reliability",
    "Response",
    "ResponseAnalysis",
    "SearchSpace",
    "SparseGroups",
    "SparseRows",
    "Stint",
    "TextFigures",
    "TokenStats",
    "TrialResult",
    "Variant",
    "Verdict",
    "concatenate_groups",
]
