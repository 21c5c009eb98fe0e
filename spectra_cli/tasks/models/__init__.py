"""Models of the papers, with the names of parameters that the papers' checkpoints have."""
