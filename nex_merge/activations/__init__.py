"""Model + Responses -> sparse rows of activations, and their cache on disk."""
