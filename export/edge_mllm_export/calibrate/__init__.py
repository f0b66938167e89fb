"""What the checkpoint's layers see while it answers about pictures."""
