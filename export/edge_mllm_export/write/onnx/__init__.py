"""The decoder as an ONNX graph."""
