"""The tower with its projector."""
