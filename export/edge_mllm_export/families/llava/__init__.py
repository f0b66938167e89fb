"""LLaVA and what descends from it."""
