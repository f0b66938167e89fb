"""How pictures and messages become a prompt, for each layout of a model's files."""
