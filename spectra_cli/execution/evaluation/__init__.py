"""The commands that evaluate models: prune-eval and barrier."""
