"""Model and responses -> sparse rows of activations, and the cache that keeps them on disk."""
