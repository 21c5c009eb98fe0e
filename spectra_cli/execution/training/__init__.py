"""The command that trains models: train."""
