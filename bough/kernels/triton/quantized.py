"""A block of fp8 KV: products in fp16, scales on the scores and on the weights.

e4m3 numbers are fp16 numbers too, and one instruction turns two of them. A token's power of two
need not be multiplied into its row: it comes out of the product of a query and a key, and it goes
onto the weight of a value.
"""

from __future__ import annotations

import triton
import triton.language as tl

from bough.fp8 import SCALE_COLUMNS
from bough.kernels.triton.padding import padded

# What stored exponents exceed their meaning by.
_BIAS = tl.constexpr(127)


@triton.constexpr_function
def num_scales(dim):
    """Powers that a row of `dim` columns has."""
    return -(-dim // SCALE_COLUMNS)


@triton.jit
def power(exponent):
    """2 ** (exponent - 127), exactly; 0 for exponents below 1."""
    return (tl.maximum(exponent, 0) << 23).to(tl.float32, bitcast=True)


@triton.jit
def load_exponents(scales, page, slot, head, mask_kv):
    """[tokens] words of four exponents each; zeros for tokens that are not there."""
    word_ptr = scales.ptr + page.to(tl.int64) * scales.stride_page + slot * scales.stride_slot
    return tl.load(word_ptr + head * scales.stride_head, mask=mask_kv, other=0)


@triton.jit
def exponent_of(word, FIRST: tl.constexpr, DIM: tl.constexpr):
    """[tokens] the greatest exponent of a row of DIM columns."""
    exponent = (word >> (8 * FIRST)) & 255
    for at in tl.static_range(1, num_scales(DIM)):
        exponent = tl.maximum(exponent, (word >> (8 * (FIRST + at))) & 255)
    return exponent


@triton.jit
def load_pairs(ptrs, mask, DIM: tl.constexpr):
    """[len(ptrs), DIM padded] e4m3 from pointers to words of two columns each.

    Values are multiplied along tokens. Rows of bytes would be gathered byte by byte for that; what
    is put together from words is laid out anew as fp16, which the hardware transposes.
    """
    offs_pair = tl.arange(0, padded(DIM) // 2)
    mask_pair = mask[:, None] & (offs_pair < DIM // 2)[None, :]
    pairs = tl.load(ptrs[:, None] + offs_pair[None, :], mask=mask_pair, other=0)
    even = (pairs & 255).to(tl.uint8).to(tl.float8e4nv, bitcast=True)
    odd = ((pairs >> 8) & 255).to(tl.uint8).to(tl.float8e4nv, bitcast=True)
    return tl.join(even, odd).reshape(pairs.shape[0], padded(DIM))


@triton.jit
def to_products(rows, word, exponent, FIRST: tl.constexpr, DIM: tl.constexpr, TYPE: tl.constexpr):
    """[tokens, DIM padded] e4m3 rows as TYPE, in units of each token's `exponent`."""
    rows = rows.to(TYPE)
    if num_scales(DIM) > 1:
        NUM: tl.constexpr = num_scales(padded(DIM))
        COLUMNS: tl.constexpr = padded(DIM) // NUM
        at = (word[:, None] >> (8 * (FIRST + tl.arange(0, NUM)))[None, :]) & 255
        # [tokens, NUM], at most 1
        factor = power(at - exponent[:, None] + _BIAS).to(TYPE)
        by_scale = rows.reshape(rows.shape[0], NUM, COLUMNS) * factor[:, :, None]
        rows = by_scale.reshape(rows.shape[0], padded(DIM))
    return rows


@triton.jit
def common_unit(weight, decay, exponent, unit):
    """Give weights [rows, tokens] the powers of their values, in a unit that none exceeds.

    Returns:
        the weights, the factor by which former states shrink, and the exponent of the unit.
    """
    next_unit = tl.maximum(unit, tl.max(exponent, 0))
    weight *= power(exponent - next_unit + _BIAS)[None, :]
    return weight, decay * power(unit - next_unit + _BIAS), next_unit


@triton.jit
def in_ones(acc, unit, SHAPE: tl.constexpr):
    """Take sums back from powers of two."""
    if SHAPE.IS_FP8:
        acc *= power(unit)
    return acc
