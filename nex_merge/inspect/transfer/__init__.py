"""Interventions on neurons: copying them from one model into another, and measuring the effect."""
