"""From numbers to e4m3 with powers of two as scales, and back. Kernels do the same in place."""

from __future__ import annotations

import torch
from torch import Tensor

# Numbers of eight bits: a sign, four bits of exponent, three of fraction; 448 is the largest.
FP8 = torch.float8_e4m3fn
# Columns of a token's row of one stored head that have a scale in common.
SCALE_COLUMNS = 128
# Exponents are stored as float32 has them, 127 above what they mean. The least keeps its inverse
# within float32.
_BIAS = 127
_LEAST = 1
# 448 is 1.75 * 2**8: what a fraction above .75 adds to a float32's bits to reach its exponent.
_ROUND_UP = 0x1FFFFF
_TOP_EXPONENT = 8


def quantize(values: Tensor) -> tuple[Tensor, Tensor]:
    """Write rows as e4m3 numbers times powers of two.

    Args:
        values: [..., dim].

    Returns:
        numbers [..., dim] e4m3, and the exponents [..., ceil(dim / 128)] uint8 of each 128 columns:
        the least with which the largest number is at most 448, plus 127.
    """
    whole = _in_columns(values.float())
    bits = whole.abs().amax(dim=-1).contiguous().view(torch.int32)
    exponents = ((bits + _ROUND_UP >> 23) - _TOP_EXPONENT).clamp(min=_LEAST)
    inverse = _power(2 * _BIAS - exponents)
    numbers = (whole * inverse[..., None]).flatten(-2)[..., : values.shape[-1]]
    return numbers.to(FP8), exponents.to(torch.uint8)


def dequantize(numbers: Tensor, exponents: Tensor) -> Tensor:
    """Return rows [..., dim] fp32 of what `quantize` made of them."""
    scale = _power(exponents.to(torch.int32))
    scaled = _in_columns(numbers.float()) * scale[..., None]
    return scaled.flatten(-2)[..., : numbers.shape[-1]]


def _in_columns(values: Tensor) -> Tensor:
    """[..., ceil(dim / 128), 128], with zeros behind the last column."""
    missing = -values.shape[-1] % SCALE_COLUMNS
    padded = torch.nn.functional.pad(values, (0, missing))
    return padded.unflatten(-1, (-1, SCALE_COLUMNS))


def _power(exponents: Tensor) -> Tensor:
    """2 ** (exponent - 127), exactly."""
    return (exponents << 23).view(torch.float32)
