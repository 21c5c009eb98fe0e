"""The commands that look at the matrices of checkpoints: rank, align, sva and analyze."""
