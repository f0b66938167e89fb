"""What lies on disk: bundles, published directories, GGUF files."""
