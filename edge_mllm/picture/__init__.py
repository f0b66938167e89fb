"""One picture: decoded, planned, cut into tiles or patches, and its visual tokens reduced."""
