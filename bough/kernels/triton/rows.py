"""The rows of a tile: which queries they are, and where their states go."""

from __future__ import annotations

import triton
import triton.language as tl

from bough.kernels.triton.padding import padded
from bough.kernels.triton.softmax import LN_2, LOG2_E


@triton.jit
def find_rows(tables, tile, first_row, num_rows, SHAPE: tl.constexpr, BLOCK_Q: tl.constexpr):
    """Find each row's query, what it sees, and how far the tile reads.

    What it sees is the position up to which it does, and which tokens before that are hidden; all
    rows see those up to `clear`.

    A row is one of the tile's queries at one query head of the group; `row // GROUP_SIZE` counts
    queries.
    """
    offs_row = first_row + tl.arange(0, BLOCK_Q)
    mask_row = offs_row < num_rows
    begin = tl.load(tables.tile_query_begin + tile)
    query = tl.load(
        tables.query_indices + begin + offs_row // SHAPE.GROUP_SIZE, mask=mask_row, other=0
    ).to(tl.int64)
    position = tl.load(tables.query_position + query, mask=mask_row, other=-1)
    hidden = position
    clear = -1
    if SHAPE.HAS_DRAFTS:
        hidden = tl.load(tables.query_hidden + query, mask=mask_row, other=0)
        oldest = tl.load(tables.query_indices + begin + first_row // SHAPE.GROUP_SIZE)
        clear = tl.load(tables.query_position + oldest) - 64
    # Of a tile's queries, the last sees as far into it as any other.
    newest = tl.load(tables.query_indices + begin + num_rows // SHAPE.GROUP_SIZE - 1)
    stop = tl.load(tables.query_position + newest) + 1
    return offs_row, mask_row, query, position, (hidden, clear), stop


@triton.jit
def load_queries(queries, query, head, offs_row, mask_row, SHAPE: tl.constexpr):
    """Rows of a stored head's queries, [BLOCK_Q, NOPE_DIM padded], and their rotary parts.

    Of specs without rotary part the latter are the former, and never used.
    """
    q_head = head * SHAPE.GROUP_SIZE + offs_row % SHAPE.GROUP_SIZE
    ptrs = queries.ptr + query * queries.stride_token + q_head * queries.stride_head
    q = load_columns(ptrs, mask_row, SHAPE.NOPE_DIM)
    q_rope = q
    if SHAPE.ROPE_DIM > 0:
        q_rope = load_columns(ptrs + SHAPE.NOPE_DIM, mask_row, SHAPE.ROPE_DIM)
    return q, q_rope


@triton.jit
def load_columns(ptrs, mask, DIM: tl.constexpr):
    """[len(ptrs), DIM padded], zeros beyond the rows and the dimension."""
    offs_dim = tl.arange(0, padded(DIM))
    mask_dim = mask[:, None] & (offs_dim < DIM)[None, :]
    return tl.load(ptrs[:, None] + offs_dim[None, :], mask=mask_dim, other=0.0)


@triton.jit
def store_states(
    sinks_ptr,
    tables,
    states,
    tile,
    head,
    query,
    offs_row,
    mask_row,
    peak,
    total,
    acc,
    SHAPE: tl.constexpr,
):
    """Write rows of queries that have this tile only to the outputs, all others to partials."""
    NUM_Q_HEADS: tl.constexpr = SHAPE.NUM_KV_HEADS * SHAPE.GROUP_SIZE
    offs_v = tl.arange(0, padded(SHAPE.V_DIM))
    mask_v = (offs_v < SHAPE.V_DIM)[None, :]
    q_head = head * SHAPE.GROUP_SIZE + offs_row % SHAPE.GROUP_SIZE
    is_only = tl.load(tables.query_num_tiles + query, mask=mask_row, other=0) == 1
    mask_only = mask_row & is_only
    mask_partial = mask_row & (is_only == 0)

    only_total = total
    if SHAPE.HAS_SINKS:
        sink = tl.load(sinks_ptr + q_head, mask=mask_row, other=float("-inf")).to(tl.float32)
        only_total = total + tl.exp2(sink * LOG2_E - tl.where(total > 0, peak, 0.0))
    row = query * NUM_Q_HEADS + q_head
    divisor = tl.where(only_total > 0, only_total, 1.0)
    tl.store(
        states.out + row[:, None] * SHAPE.V_DIM + offs_v[None, :],
        (acc / divisor[:, None]).to(states.out.dtype.element_ty),
        mask=mask_only[:, None] & mask_v,
    )
    tl.store(states.lse + row, (peak + tl.log2(only_total)) * LN_2, mask=mask_only)

    start = tl.load(tables.tile_partial_start + tile).to(tl.int64)
    row = (start + offs_row // SHAPE.GROUP_SIZE) * NUM_Q_HEADS + q_head
    divisor = tl.where(total > 0, total, 1.0)
    tl.store(
        states.partial_out + row[:, None] * SHAPE.V_DIM + offs_v[None, :],
        acc / divisor[:, None],
        mask=mask_partial[:, None] & mask_v,
    )
    tl.store(states.partial_lse + row, (peak + tl.log2(total)) * LN_2, mask=mask_partial)
