"""Everything that needs labels: accuracy, and whether measures agree with it."""
