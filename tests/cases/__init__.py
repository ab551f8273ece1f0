"""Generators of strangers' networks: small ONNX files as other tools write them, each with inputs and the right answer."""
