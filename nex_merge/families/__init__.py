"""The families that the package carries, each with the scripts that made it."""
