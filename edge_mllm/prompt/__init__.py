"""Messages to token ids and tokens back to text."""
