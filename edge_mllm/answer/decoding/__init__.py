"""From prompt to tokens: the cache's cells, the splice, sampling and what may be sampled."""
