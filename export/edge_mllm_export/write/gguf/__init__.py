"""The decoder as a GGUF file."""
