"""``edge-mllm chat``: what is typed, what is done with it, and the conversation in the terminal."""
