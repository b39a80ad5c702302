"""Every shipped configuration compiles for Hopper without a GPU, and spills no registers."""

from __future__ import annotations

from tests.kernels.compiled import assert_fits_without_spills, compile_all


def test_no_configuration_spills_registers_on_sm_90() -> None:
    figures = compile_all("tests.kernels.compile_sm90")
    assert len(figures) > 20
    assert_fits_without_spills(figures)
