"""NEX (Neuron Explore-Exploit, arXiv 2602.05805) as pure functions of a sparse activation cache.

novelty -> phases -> credit -> calibration -> good_mass -> scoring. NumPy only: no torch, no Optuna, no files. On caches
of one's own:

    from nex_merge import nex
    from nex_merge.activations.cache import read_cache      # or build nex_merge.records.SparseRows from arrays

    rows = read_cache(folder)
    analyses = nex.analyse(rows, rho=0.95, min_run=2)        # novelty, phases, cycles and credit of each response
    evidence = nex.Evidence(prompts, rows.base, nex.stack_credits(analyses))
    nex.score(evidence, analyses, "self").nex
"""

from nex_merge.nex.calibration import analyse, calibrate, stack_credits
from nex_merge.nex.scoring import resampled, rescore, score
from nex_merge.records import Evidence, NeuronWeights, NexScore, SparseRows

__all__ = [
    "Evidence",
    "NeuronWeights",
    "NexScore",
    "SparseRows",
    "analyse",
    "calibrate",
    "resampled",
    "rescore",
    "score",
    "stack_credits",
]
