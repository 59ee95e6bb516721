"""The run folder: its files, its leaderboard, and what reads it later."""
