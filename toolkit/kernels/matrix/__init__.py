"""Kernels for matrix tiles."""
