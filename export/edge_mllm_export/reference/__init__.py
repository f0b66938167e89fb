"""The checkpoint in float32, as transformers runs it."""
