"""Small problems for the tests of the benchmarks."""

from __future__ import annotations

import torch

from bough.bench.cases import Case
from bough.bench.problem import Problem, Setup, make_problem
from bough.bench.roofline import Rates
from bough.device import Device
from bough.spec import AttentionSpec

RATES = Rates(bandwidth=1e9, matmul_rate=1e12)


def setup_for(spec: str = "gqa:4:2:16", dtype: torch.dtype = torch.float32) -> Setup:
    """A small spec on the CPU, page size 4."""
    return Setup(spec=AttentionSpec.parse(spec), device=Device.cpu(), dtype=dtype, page_size=4)


def problem_of(
    text: str, spec: str = "gqa:4:2:16", *, query_len: int = 1, dtype: torch.dtype = torch.float32
) -> Problem:
    """A case with its tensors."""
    return make_problem(Case.parse(text, query_len), setup_for(spec, dtype))
