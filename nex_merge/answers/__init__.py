"""What a response concludes, and whether that is the answer. Pure text; no models, no files."""
