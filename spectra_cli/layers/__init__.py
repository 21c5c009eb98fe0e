"""Named tensors become matrices."""
