"""The table of measures. Objectives, columns, reports, correlations and the reference are views of it.

To add one: a module with a `Measure`, an entry here, a test, and `make docs-reference`.
"""

from collections.abc import Mapping

from nex_merge.measures import consensus, finishing, nex, responses
from nex_merge.measures.measure import Measure

# In the order of the leaderboard's columns.
MEASURES: Mapping[str, Measure] = {
    measure.name: measure
    for measure in (
        nex.NEX,
        consensus.CONSENSUS,
        consensus.AGREEMENT,
        consensus.SELF_CONSISTENCY,
        finishing.FINISHED,
        nex.LOG_GAP,
        responses.MEAN_TOKENS,
        responses.TRUNCATED,
        responses.LOOPING,
        responses.DISTINCT_RATIO,
        responses.ENTROPY,
        nex.EXPLORE_SHARE,
        nex.CYCLES,
        responses.ENTROPY_SPREAD,
        responses.SELF_CERTAINTY,
        responses.PERPLEXITY,
        responses.UTILIZATION,
        responses.NOVELTY,
        responses.REPEATED,
        responses.EMPTY,
        responses.NON_TEXT,
        nex.WEIGHTED_MASS,
        nex.SATURATION,
    )
}
# Those that other modules ask for by themselves.
NEX, CONSENSUS = nex.NEX, consensus.CONSENSUS
# Those that can speak for a pick, in the order in which sentences name them: what they rank high is meant to be right
# more often.
SUPPORTING = (consensus.CONSENSUS, consensus.AGREEMENT, consensus.SELF_CONSISTENCY, finishing.FINISHED, nex.NEX)
OBJECTIVES: Mapping[str, Measure] = {name: measure for name, measure in MEASURES.items() if measure.is_objective}


def measure_title(name: str) -> str:
    """A measure's name in sentences and figures."""
    title = MEASURES[name].title if name in MEASURES else ""
    return title or name.replace("_", " ")
