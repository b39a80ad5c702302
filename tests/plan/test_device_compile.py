"""The device planner's kernels compile for Hopper without a GPU, and spill no registers."""

from __future__ import annotations

from tests.kernels.compiled import assert_fits_without_spills, compile_all


def test_no_kernel_of_the_planner_spills_registers_on_sm_90() -> None:
    figures = compile_all("tests.plan.compile_device")
    assert len(figures) == 9
    assert_fits_without_spills(figures)
