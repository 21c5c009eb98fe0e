"""What each command computes: from opened checkpoints to rows of its table."""
