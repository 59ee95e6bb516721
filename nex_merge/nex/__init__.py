"""NEX (Neuron Explore-Exploit, arXiv 2602.05805) as pure functions of a sparse activation cache.

novelty -> phases -> credit -> calibration -> good_mass. No torch, no Optuna, no files.
"""
