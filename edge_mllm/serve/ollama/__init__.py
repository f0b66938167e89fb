"""The routes that Ollama's clients use."""
