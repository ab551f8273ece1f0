"""Kernels that multiply bytes and sum in int32."""
