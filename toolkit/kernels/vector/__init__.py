"""Kernels that compute in vectors of fp32."""
