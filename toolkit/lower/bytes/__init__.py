"""Layers of bytes: what `lower.integers` makes of a quantized network."""
