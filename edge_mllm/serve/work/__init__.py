"""A request on its way through the one model: waiting, asked by one thread, answered in pieces."""
