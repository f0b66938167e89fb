"""Pictures of a conversation, and the encoder that gives their embeddings."""
