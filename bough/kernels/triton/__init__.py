"""The portable GPU backend: a plan's tiles and merges as plain Triton kernels."""

from bough.kernels.triton.backend import TritonBackend

__all__ = ["TritonBackend"]
