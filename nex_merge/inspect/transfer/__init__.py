"""Cause, not just correlation: neurons copied from one model into another, and what that changes."""
