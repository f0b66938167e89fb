"""A checkpoint directory: its configuration and tensors, read with limits."""
