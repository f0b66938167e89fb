"""The routes that OpenAI's clients use."""
