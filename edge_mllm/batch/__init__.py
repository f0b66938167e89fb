"""Many questions at once: rows of pictures and prompts to rows of answers."""
