"""What columns [tokens, rows] of a product come to, told warp by warp.

A warp writes what its tokens come to, and every thread reads what all warps have told of the rows
that it has itself: one exchange, where a reduction takes two.
"""

from __future__ import annotations

import triton
from triton.experimental import gluon
from triton.experimental.gluon import language as gl

from bough.kernels.gluon.softmax import raise_peak


@triton.constexpr_function
def _told_layout(num_told, num_rows):
    """[warps, rows]: a thread has what all warps tell of the rows it has in a product."""
    told = [[1 << bit, 0] for bit in range(num_told.bit_length() - 1)]
    rows = [[0, 1 << bit] for bit in (0, *range(3, num_rows.bit_length() - 1))]
    return gl.DistributedLinearLayout(
        [*told, *rows],
        [[0, 2], [0, 4], [0, 0], [0, 0], [0, 0]],
        [[0, 0], [0, 0]],
        [],
        [num_told, num_rows],
    )


@gluon.jit
def new_told(NUM: gl.constexpr, NUM_WARPS: gl.constexpr, NUM_ROWS: gl.constexpr):
    """Allocate room [NUM, warps, rows] for what so many warps tell."""
    NUMBERS: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [1, 0])
    return gl.allocate_shared_memory(gl.float32, [NUM, NUM_WARPS, NUM_ROWS], NUMBERS)


@gluon.jit
def weigh_columns(score, peak, factor, told):
    """Turn scores [tokens, rows] into weights, as `softmax.weigh` does those of rows.

    Returns the weights, the factor by which former states shrink, and the new peak in units of
    log2.
    """
    told.store(gl.max(by_warp(score), 1))
    gl.thread_barrier()
    highest = read_peaks(told, gl.SliceLayout(0, score.type.layout))
    next_peak, base, decay = raise_peak(peak, highest * factor)
    return gl.exp2(score * factor - base[None, :]), decay, next_peak


@gluon.jit
def by_warp(columns):
    """[4, 16, rows]: columns of a product as high as its warps, with the tokens of each apart."""
    return gl.reshape(columns, [4, 16, columns.shape[1]])


@gluon.jit
def read_peaks(told, ROWS: gl.constexpr):
    """[rows] the greatest of what has been told [warps, rows]."""
    return gl.convert_layout(gl.max(_read(told), 0), ROWS, assert_trivial=True)


@gluon.jit
def read_sums(told, ROWS: gl.constexpr):
    """[rows] the sum of what has been told [warps, rows]."""
    return gl.convert_layout(gl.sum(_read(told), 0), ROWS, assert_trivial=True)


@gluon.jit
def _read(told):
    return told.load(_told_layout(told.shape[0], told.shape[1]))
