"""Checkpoints in layouts of their own, rewritten as transformers saves them."""
