"""A model that is open: loading, conversations, pictures prepared in the background."""
