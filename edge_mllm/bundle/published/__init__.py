"""Directories that others have published, opened as they are: ONNX files with the names that transformers.js uses."""
