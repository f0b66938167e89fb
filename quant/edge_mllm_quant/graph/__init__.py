"""ONNX graphs, saved and changed."""
