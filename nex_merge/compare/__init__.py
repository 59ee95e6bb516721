"""Blind comparisons of two trials: which prompts, in which order; on a terminal, a page, or sheets for judges."""
