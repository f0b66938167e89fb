"""One model behind HTTP: the OpenAI way, Ollama's way, and what this project adds to both."""
