"""Mutated inputs of every kind: each must end in an answer or in one line of the package's own."""
