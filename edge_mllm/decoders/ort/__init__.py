"""The language model on ONNX Runtime."""
