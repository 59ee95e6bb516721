"""Observations -> values: what variants are ranked by or looked at."""
