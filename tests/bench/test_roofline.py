from __future__ import annotations

import pytest

from bough.bench.roofline import Rates
from tests.bench.problems import problem_of


def test_the_roofline_is_the_later_of_bytes_and_flops() -> None:
    problem = problem_of("1,3|6,5")  # 21 tokens of 2 x 2 x 16 numbers, 3 queries
    num_bytes = 21 * 64 * 4 + 3 * 4 * 32 * 4
    flops = 2 * 3 * 11 * 4 * 32
    assert problem.kv_bytes + problem.qo_bytes == num_bytes
    assert problem.flops == flops
    slow_memory = Rates(bandwidth=1e3, matmul_rate=1e12)
    assert slow_memory.seconds(problem) == pytest.approx(num_bytes / 1e3)
    assert slow_memory.limit(problem) == "memory"
    slow_products = Rates(bandwidth=1e12, matmul_rate=1e3)
    assert slow_products.seconds(problem) == pytest.approx(flops / 1e3)
    assert slow_products.limit(problem) == "compute"
