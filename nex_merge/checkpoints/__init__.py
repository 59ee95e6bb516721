"""One checkpoint folder as it lies on disk: which files are read, and what of them has to be mended first."""
