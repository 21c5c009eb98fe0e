"""Matrices become numbers: pure functions on tensors, without paths, names or printing."""
