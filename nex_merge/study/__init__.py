"""A search: trials, the Optuna study that proposes them, preflight, progress."""
