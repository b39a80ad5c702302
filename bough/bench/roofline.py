"""The roofline: what this machine copies and multiplies, and the least time of a step on it.

A step cannot take less than its unique bytes at the measured copy bandwidth, nor less than its
FLOPs at the measured rate of dense products:

    roofline = max(flops / matmul_rate, (unique KV + Q + O bytes) / bandwidth)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from bough.bench.problem import Problem
from bough.bench.timing import Clock, time_alone, time_in_turns

# Larger than any cache, and than what a device needs to come up to speed.
_COPY_BYTES = {"cpu": 256 << 20, "cuda": 1 << 30}
_MATMUL_SIZE = {"cpu": 1536, "cuda": 8192}
_REPEATS = 9


@dataclass(frozen=True, kw_only=True)
class Rates:
    """What a device does at its best.

    Args:
        bandwidth: bytes per second of a large copy, read and written ones together.
        matmul_rate: FLOP per second of a large square product.
    """

    bandwidth: float
    matmul_rate: float

    def seconds(self, problem: Problem) -> float:
        """Return the roofline of a problem."""
        return max(self._compute(problem), self._memory(problem))

    def limit(self, problem: Problem) -> str:
        """Return which of the two bounds it: `memory` or `compute`."""
        return "memory" if self._memory(problem) >= self._compute(problem) else "compute"

    def _compute(self, problem: Problem) -> float:
        return problem.flops / self.matmul_rate

    def _memory(self, problem: Problem) -> float:
        return (problem.kv_bytes + problem.qo_bytes) / self.bandwidth


def measure_rates(device: str, dtype: torch.dtype, clock: Clock) -> Rates:
    """Time a copy and a product; the fastest of a few repeats counts.

    The copy is done by the runtime and by a kernel, which differ on a GPU: the faster counts.

    Args:
        device: where, as torch writes it.
        dtype: of the product's factors.
        clock: how a call on that device is timed.
    """
    kind = torch.device(device).type
    num_bytes, size = _COPY_BYTES[kind], _MATMUL_SIZE[kind]
    source = torch.zeros(num_bytes // 4, dtype=torch.int32, device=device)
    target = torch.zeros_like(source)
    copies = {
        "runtime": lambda: target.copy_(source),
        "kernel": lambda: torch.bitwise_not(source, out=target),
    }
    copy = min(timing.low for timing in time_in_turns(copies, clock, repeats=_REPEATS).values())
    factor = torch.randn(size, size, dtype=dtype, device=device)
    product = time_alone(lambda: factor @ factor, clock, repeats=_REPEATS)
    return Rates(bandwidth=2 * num_bytes / copy, matmul_rate=2 * size**3 / product.low)
