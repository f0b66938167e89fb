"""What the commands share: options, messages, tables."""
