"""A model, data and metrics for a checkpoint; training the papers' systems."""
