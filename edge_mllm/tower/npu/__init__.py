"""A tower on an NPU, in a process of its own."""
