"""The finished bundle against the checkpoint."""
