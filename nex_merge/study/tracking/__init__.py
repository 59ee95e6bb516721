"""Experiment trackers that are told of a search: `observer.py` in the search, and a process for each of them."""
