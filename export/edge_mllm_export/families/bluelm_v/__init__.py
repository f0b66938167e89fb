"""BlueLM-V-3B."""
