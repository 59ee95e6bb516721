"""Everything that takes known answers: accuracy, and whether measures agree with it."""
