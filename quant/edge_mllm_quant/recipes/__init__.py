"""Recipes: what each component of a bundle is stored in, exceptions from them, and mixtures of them."""
