"""Models by name: the catalogue, what a repository of the hub holds, and fetching what is needed of it."""
