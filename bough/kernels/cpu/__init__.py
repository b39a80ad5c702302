"""The CPU backend: a plan's tiles as grouped products in torch, in fp32."""

from bough.kernels.cpu.backend import CpuBackend

__all__ = ["CpuBackend"]
