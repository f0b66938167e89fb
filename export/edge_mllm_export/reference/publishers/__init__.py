"""Processors written from publishers' code, for directories that need such code to be run."""
