"""Stored rows as products read them: e4m3 numbers from shared memory, fp16 in registers.

Products take tokens or columns as their height, so that stored rows are their first operand, which
may lie in registers: numbers are turned there and never written back. A thread reads sixteen
columns of a key at a time, or a few columns of each of its tokens' values. Neither is the order in
which products want them, but the order of what is summed over, and of the rows of a result, is free
as long as all agree on it: queries have their columns in the order of the keys', and outputs are
put back in order where they are stored.
"""

from __future__ import annotations

import triton
from triton.experimental import gluon
from triton.experimental.gluon import language as gl

from bough.kernels.gluon.grouped.tile import BLOCK_BITS

# Tokens of a block, the height of a product.
KV = gl.constexpr(1 << BLOCK_BITS.value)


@triton.constexpr_function
def staged_layout(columns, itemsize):
    """Where rows lie in shared memory: sixteen bytes at a time, scattered over all banks."""
    num_bytes = columns * itemsize
    per_phase = max(1, 128 // num_bytes)
    return gl.SwizzledSharedLayout(16 // itemsize, per_phase, 8 // per_phase, [1, 0])


@triton.constexpr_function
def multiplied_layout(columns, itemsize):
    """The same for rows of at most 128 bytes, so that products can read them where they lie."""
    return gl.NVMMASharedLayout(
        swizzle_byte_width=columns * itemsize, element_bitwidth=8 * itemsize, rank=2
    )


@triton.constexpr_function
def key_layout(columns):
    """[tokens, columns]: a thread has consecutive columns, an eighth of a row in either half."""
    registers = [[0, 1 << bit] for bit in range(columns.bit_length() - 3)]
    return gl.DistributedLinearLayout(
        [*registers, [8, 0]],
        [[0, columns // 4], [0, columns // 2], [1, 0], [2, 0], [4, 0]],
        [[16, 0], [32, 0]],
        [],
        [KV.value, columns],
    )


@triton.constexpr_function
def value_layout(columns):
    """[tokens, columns]: a thread has consecutive columns of every fourth pair of tokens."""
    own = columns // 32
    registers = [[0, 1 << bit] for bit in range(own.bit_length() - 1)]
    return gl.DistributedLinearLayout(
        [*registers, [1, 0], [8, 0], [16, 0], [32, 0]],
        [[2, 0], [4, 0], [0, own], [0, 2 * own], [0, 4 * own]],
        [[0, 8 * own], [0, 16 * own]],
        [],
        [KV.value, columns],
    )


@gluon.jit
def as_keys(rows):
    """[rows, columns] with the columns in the order in which products add keys up."""
    NUM_ROWS: gl.constexpr = rows.shape[0]
    DIM: gl.constexpr = rows.shape[1]
    parts = gl.permute(gl.reshape(rows, [NUM_ROWS, 4, DIM // 8, 2]), (0, 2, 1, 3))
    return gl.reshape(parts, [NUM_ROWS, DIM])


@gluon.jit
def load_keys(place, ACROSS: gl.constexpr):
    """Read keys [tokens, columns] as fp16, for a product with `as_keys` of queries."""
    OPERAND: gl.constexpr = gl.DotOperandLayout(0, ACROSS, 2)
    rows = place.load(key_layout(place.shape[1])).to(gl.float16)
    return gl.convert_layout(as_keys(rows), OPERAND, assert_trivial=True)


@gluon.jit
def load_values(place, ACROSS: gl.constexpr):
    """Read values [columns, tokens] as fp16, the columns in an order that `in_order` undoes."""
    DIM: gl.constexpr = place.shape[1]
    OPERAND: gl.constexpr = gl.DotOperandLayout(0, ACROSS, 2)
    rows = place.load(value_layout(DIM))
    parts = gl.permute(gl.reshape(rows, [KV, 4, 8, DIM // 64, 2]), (3, 1, 4, 2, 0))
    # Two tokens' numbers lie side by side before they are turned, as products want them.
    columns = gl.convert_layout(gl.reshape(parts, [DIM, KV]), OPERAND, assert_trivial=True)
    return _to_fp16(columns)


@gluon.jit
def _to_fp16(numbers):
    """The same numbers, exactly: four at a time, which takes fewer moves than two."""
    return gl.inline_asm_elementwise(
        """{
            .reg .b16 low, high;
            mov.b32 {low, high}, $2;
            cvt.rn.f16x2.e4m3x2 $0, low;
            cvt.rn.f16x2.e4m3x2 $1, high;
        }""",
        "=r,=r,r",
        [numbers],
        dtype=gl.float16,
        is_pure=True,
        pack=4,
    )


@gluon.jit
def in_order(sums):
    """Sums [columns, rows] of products with `load_values`, the columns in their own order."""
    DIM: gl.constexpr = sums.shape[0]
    NUM_ROWS: gl.constexpr = sums.shape[1]
    parts = gl.permute(gl.reshape(sums, [DIM // 64, 4, 2, 8, NUM_ROWS]), (1, 3, 0, 2, 4))
    return gl.reshape(parts, [DIM, NUM_ROWS])
