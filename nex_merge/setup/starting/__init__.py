"""What `nex-merge init` writes: a mergekit file, or models -> a configuration with a search space."""
