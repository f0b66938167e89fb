"""A tower's float graph as NPUs take it: fixed shapes, plain operators, fixed scales."""
