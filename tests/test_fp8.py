"""Numbers in fp8: what is kept of them, and at which scale."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bough.fp8 import FP8, dequantize, quantize


@settings(max_examples=60, deadline=None)
@given(dim=st.sampled_from([2, 16, 128, 130, 512]), power=st.integers(-40, 40), seed=st.integers())
def test_every_number_keeps_three_bits_of_fraction_whatever_the_magnitude(
    dim: int, power: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed % 2**32)
    rows = torch.randn(5, dim, generator=generator) * 2.0**power
    numbers, exponents = quantize(rows)
    assert (numbers.dtype, exponents.dtype) == (FP8, torch.uint8)
    assert exponents.shape == (5, -(-dim // 128))
    # Half a unit of the last bit: of the number itself, or of the least that e4m3 has.
    scale = torch.exp2(exponents.float() - 127).repeat_interleave(128, dim=1)[:, :dim]
    unit = torch.maximum(rows.abs() / 16, scale * 2.0**-10)
    assert ((dequantize(numbers, exponents) - rows).abs() <= unit).all()


@pytest.mark.parametrize(
    ("largest", "exponent"), [(448.0, 127), (449.0, 128), (224.5, 127), (224.0, 126), (1.0, 119)]
)
def test_the_scale_is_the_least_power_of_two_that_fits(largest: float, exponent: int) -> None:
    _, exponents = quantize(torch.tensor([[largest, -1e-3]]))
    assert exponents.tolist() == [[exponent]]


def test_numbers_that_fp8_has_come_back_exactly() -> None:
    every = torch.arange(0, 127, dtype=torch.uint8).view(FP8).float()
    rows = torch.cat([every, -every])[None] * 2.0**-9
    numbers, exponents = quantize(rows)
    assert torch.equal(dequantize(numbers, exponents), rows)


def test_rows_of_zeros_and_tiny_rows_stay_finite() -> None:
    rows = torch.tensor([[0.0, 0.0], [1e-40, -1e-38]])
    numbers, exponents = quantize(rows)
    back = dequantize(numbers, exponents)
    assert torch.equal(back[0], rows[0])
    assert back.isfinite().all()


def test_nan_stays_nan() -> None:
    numbers, exponents = quantize(torch.tensor([[1.0, torch.nan]]))
    assert dequantize(numbers, exponents).isnan().any()
