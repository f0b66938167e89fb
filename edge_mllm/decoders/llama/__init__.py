"""The language model on llama.cpp."""
