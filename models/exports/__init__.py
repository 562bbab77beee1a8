"""The models of an artifact in formats that need no Lodestar: treelite and ONNX."""
