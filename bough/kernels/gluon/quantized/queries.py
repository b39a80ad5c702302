"""Query rows as products read them: fp16, or e4m3 in two parts, in place."""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import fence_async_shared

from bough.kernels.gluon.quantized.scales import BIAS, power

_ROWS = gl.constexpr(gl.BlockedLayout([1, 8], [4, 8], [4, 1], [1, 0]))
# The power of two below which rows are brought before they become e4m3, and the least exponent of
# a row that counts: smaller ones are nothing.
_HIGHEST = gl.constexpr(8)
_LEAST = gl.constexpr(40)


@gluon.jit
def turn_queries(tile, ROWS: gl.constexpr, arrange, SHAPE: gl.constexpr):
    """Write the first ROWS rows of a tile over, columns of keys and states as `arrange` has them.

    e4m3 numbers are fp16 numbers, and queries of bf16 become such once; those of rotary keys become
    bf16, as these are stored. Returns both parts; of untied specs, the one twice.
    """
    NOPE_DIM: gl.constexpr = SHAPE.NOPE_DIM
    ROPE_DIM: gl.constexpr = SHAPE.ROPE_DIM
    QK_DIM: gl.constexpr = NOPE_DIM + ROPE_DIM
    rows = tile.slice(0, ROWS)
    turned = rows._reinterpret(gl.float16, [ROWS, QK_DIM], tile.layout)
    q_nope = turned.slice(0, NOPE_DIM, dim=1)
    q_rope = q_nope
    nope = rows.slice(0, NOPE_DIM, dim=1).load(_ROWS).to(gl.float16)
    if ROPE_DIM > 0:
        rope = rows.slice(NOPE_DIM, ROPE_DIM, dim=1).load(_ROWS).to(gl.bfloat16)
        gl.thread_barrier()
        turned = rows._reinterpret(gl.bfloat16, [ROWS, QK_DIM], tile.layout)
        q_rope = turned.slice(NOPE_DIM, ROPE_DIM, dim=1)
        q_rope.store(rope)
    else:
        gl.thread_barrier()
    q_nope.store(arrange(nope))
    fence_async_shared()
    gl.thread_barrier()
    return q_nope, q_rope


@gluon.jit
def as_they_lie(rows):
    """[rows, columns] unchanged."""
    return rows


@gluon.jit
def _round_to_four_bits(numbers):
    """What e4m3 has of numbers, but of the smallest.

    Turned back from e4m3 instead, some came out of registers that nothing had written (ptxas of
    CUDA 12.8).
    """
    bits = numbers.to(gl.int32, bitcast=True)
    bits += 0x7FFFF + ((bits >> 20) & 1)
    return (bits & -0x100000).to(gl.float32, bitcast=True)


@gluon.jit
def split_queries(tile, powers):
    """Write a tile of query rows over as e4m3: what that has of them, and what it leaves over.

    Either part has four bits of a number, so both together have the eight that bfloat16 has.
    `powers` [rows] in shared memory gets the power of two that each row is to be multiplied by.
    Returns what is left over and what e4m3 has, each [rows, columns].
    """
    NUM_ROWS: gl.constexpr = tile.shape[0]
    DIM: gl.constexpr = tile.shape[1]
    # Both parts of 128 columns lie where their rows have been; of 64, where others have been, too.
    STEP: gl.constexpr = NUM_ROWS * 64 // DIM
    PART: gl.constexpr = gl.NVMMASharedLayout(swizzle_byte_width=DIM, element_bitwidth=8, rank=2)
    parts = tile._reinterpret(gl.float8e4nv, [2, NUM_ROWS, DIM], PART)
    for first in gl.static_range(0, NUM_ROWS, STEP):
        rows = tile.slice(first, STEP).load(_ROWS).to(gl.float32)
        most = gl.max(gl.abs(rows), 1).to(gl.int32, bitcast=True)
        exponent = gl.maximum(most >> 23, _LEAST) + 1 - _HIGHEST
        rows *= power(2 * BIAS - exponent)[:, None]
        high = _round_to_four_bits(rows)
        gl.thread_barrier()
        parts.index(0).slice(first, STEP).store(high.to(gl.float8e4nv))
        parts.index(1).slice(first, STEP).store((rows - high).to(gl.float8e4nv))
        powers.slice(first, STEP).store(power(exponent))
    fence_async_shared()
    gl.thread_barrier()
    return parts.index(1), parts.index(0)
