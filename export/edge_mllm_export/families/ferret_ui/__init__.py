"""Ferret-UI."""
