"""From what the user names to a checkpoint directory."""
