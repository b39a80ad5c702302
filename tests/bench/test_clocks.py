from __future__ import annotations

import pytest

from bough.bench.clocks import clocks_for
from bough.bench.timing import WallClock


def test_a_cpu_is_timed_by_the_wall_clock_and_has_no_cold_figure() -> None:
    clocks = clocks_for("cpu")
    assert isinstance(clocks.main, WallClock)
    assert clocks.cold is None
    assert clocks.descriptions.keys() == {"us"}


def test_a_device_without_a_clock_is_refused() -> None:
    with pytest.raises(ValueError, match="device must be cpu or cuda, got 'meta'"):
        clocks_for("meta")


@pytest.mark.gpu
def test_a_gpu_is_timed_warm_and_cold() -> None:
    import torch

    clocks = clocks_for("cuda")
    assert clocks.cold is not None
    source = torch.zeros(8 << 20, dtype=torch.uint8, device="cuda")
    target = torch.zeros_like(source)
    for clock in (clocks.main, clocks.cold):
        assert 1e-7 < clock.arm(lambda: target.copy_(source))() < 1e-3
    assert clocks.descriptions.keys() == {"us", "cold_us"}
