"""Options that several commands share, in groups by subject."""
