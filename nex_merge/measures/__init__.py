"""Observations -> values: what variants are ranked by or compared on."""
