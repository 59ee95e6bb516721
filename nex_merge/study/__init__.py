"""A search: one trial, the study that proposes trials, preflight, progress."""
