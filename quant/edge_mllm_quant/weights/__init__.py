"""Matrices of numbers: codes chosen with what their inputs look like."""
