"""The tower once more, for NPUs: a quantised graph of fixed shape, and what the vendor's compiler makes of it."""
