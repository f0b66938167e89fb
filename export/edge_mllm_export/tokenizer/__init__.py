"""Tokenizers of other kinds, converted."""
