"""A program's query rows: into shared memory at its start, states out of it at its end."""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import fence_async_shared

from bough.kernels.triton.softmax import LN_2, LOG2_E


@gluon.jit
def locate_rows(
    tables,
    work,
    first_row,
    SHAPE: gl.constexpr,
    LAYOUT: gl.constexpr,
    NUM_ROWS: gl.constexpr = 64,
):
    """Query, query head and mask of rows; rows beyond the tile read its first query."""
    offs_row = first_row + gl.arange(0, NUM_ROWS, layout=LAYOUT)
    mask_row = offs_row < work.num_rows
    at = work.query_begin + offs_row // SHAPE.GROUP_SIZE
    query = gl.load(tables.query_indices + at, mask=mask_row, other=0)
    return query, work.head * SHAPE.GROUP_SIZE + offs_row % SHAPE.GROUP_SIZE, mask_row


@gluon.jit
def load_queries(
    queries,
    tables,
    work,
    first_row,
    q_nope,
    q_rope,
    SHAPE: gl.constexpr,
    WIDTH: gl.constexpr = 64,
):
    """Copy 64 rows [64, V_DIM] and [64, ROPE_DIM], zeros where there is none."""
    LAYOUT: gl.constexpr = gl.BlockedLayout([1, 8], [4, 8], [4, 1], [1, 0])
    query, q_head, mask_row = locate_rows(tables, work, first_row, SHAPE, gl.SliceLayout(1, LAYOUT))
    start = query.to(gl.int64) * queries.stride_token + q_head * queries.stride_head
    NUM_COLUMNS: gl.constexpr = SHAPE.V_DIM
    for low in gl.static_range(0, NUM_COLUMNS, WIDTH):
        offs = low + gl.arange(0, WIDTH, layout=gl.SliceLayout(0, LAYOUT))
        ptrs = queries.ptr + start[:, None] + offs[None, :]
        q_nope.slice(low, WIDTH, dim=1).store(gl.load(ptrs, mask=mask_row[:, None], other=0.0))
    offs = SHAPE.V_DIM + gl.arange(0, SHAPE.ROPE_DIM, layout=gl.SliceLayout(0, LAYOUT))
    ptrs = queries.ptr + start[:, None] + offs[None, :]
    q_rope.store(gl.load(ptrs, mask=mask_row[:, None], other=0.0))
    fence_async_shared()
    gl.thread_barrier()


@gluon.jit
def find_targets(
    tables,
    work,
    first_row,
    SHAPE: gl.constexpr,
    LAYOUT: gl.constexpr,
    NUM_ROWS: gl.constexpr = 64,
):
    """Where each row goes: to its query's output, or to a partial.

    Returns positions of the rows' queries, and targets: query >= 0, -1 - partial below 0. Rows
    beyond the tile see nothing.
    """
    query, _, mask_row = locate_rows(tables, work, first_row, SHAPE, LAYOUT, NUM_ROWS)
    position = gl.load(tables.query_position + query, mask=mask_row, other=-1)
    is_only = gl.load(tables.query_num_tiles + query, mask=mask_row, other=1) == 1
    offs_row = first_row + gl.arange(0, NUM_ROWS, layout=LAYOUT)
    partial = gl.load(tables.tile_partial_start + work.tile) + offs_row // SHAPE.GROUP_SIZE
    return position, gl.where(is_only, query, -1 - partial)


@gluon.jit
def row_places(work, first_row, target, SHAPE: gl.constexpr):
    """Heads of rows, their places among outputs or partials, and masks of either kind."""
    NUM_Q_HEADS: gl.constexpr = SHAPE.NUM_KV_HEADS * SHAPE.GROUP_SIZE
    offs_row = first_row + gl.arange(0, target.shape[0], layout=target.type.layout)
    mask_row = offs_row < work.num_rows
    q_head = work.head * SHAPE.GROUP_SIZE + offs_row % SHAPE.GROUP_SIZE
    place = gl.where(target >= 0, target, -1 - target).to(gl.int64) * NUM_Q_HEADS + q_head
    return q_head, place, mask_row & (target >= 0), mask_row & (target < 0)


@gluon.jit
def finish_rows(
    sinks_ptr,
    states,
    work,
    first_row,
    target,
    peak,
    total,
    SHAPE: gl.constexpr,
):
    """Write the log-sum-exp of rows and return the factor that makes states of sums.

    `peak` is in units of log2. Sinks count where a query has one tile only; else in the merge.
    """
    q_head, place, mask_only, mask_partial = row_places(work, first_row, target, SHAPE)
    if SHAPE.HAS_SINKS:
        sink = gl.load(sinks_ptr + q_head, mask=mask_only, other=float("-inf")).to(gl.float32)
        total += gl.exp2(sink * LOG2_E - gl.where(total > 0, peak, 0.0))
    lse = (peak + gl.log2(total)) * LN_2
    gl.store(states.lse + place, lse, mask=mask_only)
    gl.store(states.partial_lse + place, lse, mask=mask_partial)
    return 1.0 / gl.where(total > 0, total, 1.0)


@gluon.jit
def store_columns(
    states,
    work,
    first_row,
    target,
    acc,
    first_column,
    SHAPE: gl.constexpr,
):
    """Write states [rows, columns] from `first_column` on to the outputs or the partials."""
    _, place, mask_only, mask_partial = row_places(work, first_row, target, SHAPE)
    offs_v = first_column + gl.arange(0, acc.shape[1], layout=gl.SliceLayout(0, acc.type.layout))
    start = place * SHAPE.V_DIM
    ptrs = (states.partial_out + start)[:, None] + offs_v[None, :]
    gl.store(ptrs, acc, mask=mask_partial[:, None])
    ptrs = (states.out + start)[:, None] + offs_v[None, :]
    gl.store(ptrs, acc.to(states.out.dtype.element_ty), mask=mask_only[:, None])
