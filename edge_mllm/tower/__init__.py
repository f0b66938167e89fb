"""The vision tower with its projector, the engines that run it, and the cache of what it gave."""
