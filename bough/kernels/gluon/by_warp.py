"""What columns [tokens, rows] of a product come to, told warp by warp.

A warp writes what its tokens come to, and every thread reads what all warps have told of the rows
that it has itself: one exchange, where a reduction takes two.
"""

from __future__ import annotations

import triton
from triton.experimental import gluon
from triton.experimental.gluon import language as gl


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
