"""Choosing among several responses to the same prompt, and how often each way to choose is right."""
