"""The run folder: its files, its leaderboard, and what is made of it afterwards."""
