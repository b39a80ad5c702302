"""Attention of a plan's tiles: one program an item, which is a tile on one stored head."""

from __future__ import annotations

import triton
import triton.language as tl

from bough.kernels.triton.padding import padded

LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)


@triton.jit
def attend_tiles(
    queries,
    key,
    value,
    sinks_ptr,
    tables,
    states,
    scale,
    NUM_KV_HEADS: tl.constexpr,
    GROUP_SIZE: tl.constexpr,
    NOPE_DIM: tl.constexpr,
    ROPE_DIM: tl.constexpr,
    V_DIM: tl.constexpr,
    PAGE_SIZE: tl.constexpr,
    WINDOW: tl.constexpr,
    SOFTCAP: tl.constexpr,
    HAS_SINKS: tl.constexpr,
    SMALL_BLOCK_Q: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_KV: tl.constexpr,
    NUM_STAGES: tl.constexpr,
):
    """Attend rows to segments; write outputs, or partials of queries that other tiles see too.

    A row is one of the tile's queries at one query head of the group; `row // GROUP_SIZE` counts
    queries. Tiles of at most SMALL_BLOCK_Q rows run at that height; others run BLOCK_Q rows at a
    time, slice `program_id(1)` here. ROPE_DIM is 0 for untied specs; WINDOW and SOFTCAP are 0 where
    there is none.
    """
    program = tl.program_id(0)
    if program < tl.load(tables.num_items):
        item = tl.load(tables.items + program)
        tile = item // NUM_KV_HEADS
        head = item % NUM_KV_HEADS
        num_rows = tl.load(tables.tile_num_queries + tile) * GROUP_SIZE
        first_row = tl.program_id(1) * BLOCK_Q
        if SMALL_BLOCK_Q < BLOCK_Q and num_rows <= SMALL_BLOCK_Q:
            _attend_rows(
                queries, key, value, sinks_ptr, tables, states, scale, tile, head, first_row,
                num_rows, NUM_KV_HEADS, GROUP_SIZE, NOPE_DIM, ROPE_DIM, V_DIM, PAGE_SIZE, WINDOW,
                SOFTCAP, HAS_SINKS, SMALL_BLOCK_Q, BLOCK_KV, NUM_STAGES,
            )  # fmt: skip
        elif first_row < num_rows:
            _attend_rows(
                queries, key, value, sinks_ptr, tables, states, scale, tile, head, first_row,
                num_rows, NUM_KV_HEADS, GROUP_SIZE, NOPE_DIM, ROPE_DIM, V_DIM, PAGE_SIZE, WINDOW,
                SOFTCAP, HAS_SINKS, BLOCK_Q, BLOCK_KV, NUM_STAGES,
            )  # fmt: skip


@triton.jit
def _attend_rows(
    queries,
    key,
    value,
    sinks_ptr,
    tables,
    states,
    scale,
    tile,
    head,
    first_row,
    num_rows,
    NUM_KV_HEADS: tl.constexpr,
    GROUP_SIZE: tl.constexpr,
    NOPE_DIM: tl.constexpr,
    ROPE_DIM: tl.constexpr,
    V_DIM: tl.constexpr,
    PAGE_SIZE: tl.constexpr,
    WINDOW: tl.constexpr,
    SOFTCAP: tl.constexpr,
    HAS_SINKS: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_KV: tl.constexpr,
    NUM_STAGES: tl.constexpr,
):
    NOPE_PAD: tl.constexpr = padded(NOPE_DIM)
    V_PAD: tl.constexpr = padded(V_DIM)
    offs_row = first_row + tl.arange(0, BLOCK_Q)
    mask_row = offs_row < num_rows
    begin = tl.load(tables.tile_query_begin + tile)
    # [BLOCK_Q]
    query = tl.load(
        tables.query_indices + begin + offs_row // GROUP_SIZE, mask=mask_row, other=0
    ).to(tl.int64)
    q_head = head * GROUP_SIZE + offs_row % GROUP_SIZE
    position = tl.load(tables.query_position + query, mask=mask_row, other=-1)
    # Queries of a tile ascend by position.
    newest = tl.load(tables.query_indices + begin + num_rows // GROUP_SIZE - 1)
    stop = tl.load(tables.query_position + newest) + 1

    offs_nope = tl.arange(0, NOPE_PAD)
    q_ptrs = queries.ptr + query * queries.stride_token + q_head * queries.stride_head
    q = tl.load(  # [BLOCK_Q, NOPE_PAD]
        q_ptrs[:, None] + offs_nope[None, :],
        mask=mask_row[:, None] & (offs_nope < NOPE_DIM)[None, :],
        other=0.0,
    )
    q_rope = q
    if ROPE_DIM > 0:
        q_rope = _load_rope(q_ptrs + NOPE_DIM, mask_row, ROPE_DIM)

    peak = tl.full([BLOCK_Q], float("-inf"), tl.float32)  # of scores in units of log2
    total = tl.zeros([BLOCK_Q], tl.float32)
    acc = tl.zeros([BLOCK_Q, V_PAD], tl.float32)
    first_segment = tl.load(tables.tile_segment_indptr + tile)
    last_segment = tl.load(tables.tile_segment_indptr + tile + 1)
    for segment in range(first_segment, last_segment):
        origin = tl.load(tables.segment_position + segment)
        num_tokens = tl.minimum(tl.load(tables.segment_len + segment), stop - origin)
        first_slot = tl.load(tables.segment_first_slot + segment)
        page_ptr = tables.pages + tl.load(tables.segment_page_start + segment)
        peak, total, acc = _attend_segment(
            key, value, page_ptr, first_slot, num_tokens, origin, head, q, q_rope, position,
            scale, peak, total, acc, NUM_KV_HEADS, NOPE_DIM, ROPE_DIM, V_DIM, PAGE_SIZE, WINDOW,
            SOFTCAP, BLOCK_KV, NUM_STAGES,
        )  # fmt: skip
    _store_states(
        sinks_ptr, tables, states, tile, query, q_head, offs_row, mask_row, peak, total, acc,
        NUM_KV_HEADS * GROUP_SIZE, GROUP_SIZE, V_DIM, HAS_SINKS,
    )  # fmt: skip


@triton.jit
def _attend_segment(
    key,
    value,
    page_ptr,
    first_slot,
    num_tokens,
    origin,
    head,
    q,
    q_rope,
    position,
    scale,
    peak,
    total,
    acc,
    NUM_KV_HEADS: tl.constexpr,
    NOPE_DIM: tl.constexpr,
    ROPE_DIM: tl.constexpr,
    V_DIM: tl.constexpr,
    PAGE_SIZE: tl.constexpr,
    WINDOW: tl.constexpr,
    SOFTCAP: tl.constexpr,
    BLOCK_KV: tl.constexpr,
    NUM_STAGES: tl.constexpr,
):
    """Visit a run of tokens whose pages follow `page_ptr`; return the states with it merged in."""
    NOPE_PAD: tl.constexpr = padded(NOPE_DIM)
    V_PAD: tl.constexpr = padded(V_DIM)
    offs_kv = tl.arange(0, BLOCK_KV)
    offs_nope = tl.arange(0, NOPE_PAD)
    offs_v = tl.arange(0, V_PAD)
    last = tl.maximum(num_tokens - 1, 0)
    # Page ids ride one block ahead in a register: loading them next to their rows would make the
    # rows wait for them.
    page = tl.load(page_ptr + (first_slot + tl.minimum(offs_kv, last)) // PAGE_SIZE)
    for low in tl.range(0, num_tokens, BLOCK_KV, num_stages=NUM_STAGES):
        token = low + offs_kv
        mask_kv = token < num_tokens
        slot = (first_slot + tl.minimum(token, last)) % PAGE_SIZE
        page64 = page.to(tl.int64)
        k_ptrs = key.ptr + page64 * key.stride_page + slot * key.stride_slot
        v_ptrs = value.ptr + page64 * value.stride_page + slot * value.stride_slot
        k = tl.load(  # [BLOCK_KV, NOPE_PAD]
            (k_ptrs + head * key.stride_head)[:, None] + offs_nope[None, :],
            mask=mask_kv[:, None] & (offs_nope < NOPE_DIM)[None, :],
            other=0.0,
        )
        score = tl.dot(q, tl.trans(k), input_precision="ieee")  # [BLOCK_Q, BLOCK_KV]
        if ROPE_DIM > 0:
            rope = _load_rope(k_ptrs + NUM_KV_HEADS * V_DIM, mask_kv, ROPE_DIM)
            score = tl.dot(q_rope, tl.trans(rope), score, input_precision="ieee")
        score = score * (scale * LOG2_E)
        if SOFTCAP > 0:
            # tanh(x) = 1 - 2 / (exp(2x) + 1), in units of log2
            doubled = tl.exp2(score * (2.0 / SOFTCAP))
            score = (SOFTCAP * LOG2_E) * (1.0 - 2.0 / (doubled + 1.0))
        at = origin + token
        sees = mask_kv[None, :] & (at[None, :] <= position[:, None])
        if WINDOW > 0:
            sees = sees & (at[None, :] > position[:, None] - WINDOW)
        score = tl.where(sees, score, float("-inf"))
        next_peak = tl.maximum(peak, tl.max(score, 1))
        base = tl.where(next_peak == float("-inf"), 0.0, next_peak)
        decay = tl.exp2(peak - base)
        weight = tl.exp2(score - base[:, None])
        total = total * decay + tl.sum(weight, 1)
        v = tl.load(  # [BLOCK_KV, V_PAD]
            (v_ptrs + head * value.stride_head)[:, None] + offs_v[None, :],
            mask=mask_kv[:, None] & (offs_v < V_DIM)[None, :],
            other=0.0,
        )
        acc = tl.dot(weight.to(v.dtype), v, acc * decay[:, None], input_precision="ieee")
        peak = next_peak
        page = tl.load(page_ptr + (first_slot + tl.minimum(token + BLOCK_KV, last)) // PAGE_SIZE)
    return peak, total, acc


@triton.jit
def _load_rope(ptrs, mask, ROPE_DIM: tl.constexpr):
    """[len(ptrs), ROPE_DIM padded], zeros beyond the rows and the dimension."""
    offs_rope = tl.arange(0, padded(ROPE_DIM))
    mask_rope = mask[:, None] & (offs_rope < ROPE_DIM)[None, :]
    return tl.load(ptrs[:, None] + offs_rope[None, :], mask=mask_rope, other=0.0)


@triton.jit
def _store_states(
    sinks_ptr,
    tables,
    states,
    tile,
    query,
    q_head,
    offs_row,
    mask_row,
    peak,
    total,
    acc,
    NUM_Q_HEADS: tl.constexpr,
    GROUP_SIZE: tl.constexpr,
    V_DIM: tl.constexpr,
    HAS_SINKS: tl.constexpr,
):
    """Write rows of queries that have this tile only to the outputs, all others to partials."""
    offs_v = tl.arange(0, padded(V_DIM))
    mask_v = (offs_v < V_DIM)[None, :]
    is_only = tl.load(tables.query_num_tiles + query, mask=mask_row, other=0) == 1
    mask_only = mask_row & is_only
    mask_partial = mask_row & (is_only == 0)

    only_total = total
    if HAS_SINKS:
        sink = tl.load(sinks_ptr + q_head, mask=mask_row, other=float("-inf")).to(tl.float32)
        only_total = total + tl.exp2(sink * LOG2_E - tl.where(total > 0, peak, 0.0))
    row = query * NUM_Q_HEADS + q_head
    divisor = tl.where(only_total > 0, only_total, 1.0)
    tl.store(
        states.out + row[:, None] * V_DIM + offs_v[None, :],
        (acc / divisor[:, None]).to(states.out.dtype.element_ty),
        mask=mask_only[:, None] & mask_v,
    )
    tl.store(states.lse + row, (peak + tl.log2(only_total)) * LN_2, mask=mask_only)

    start = tl.load(tables.tile_partial_start + tile).to(tl.int64)
    partial = start + offs_row // GROUP_SIZE
    row = partial * NUM_Q_HEADS + q_head
    divisor = tl.where(total > 0, total, 1.0)
    tl.store(
        states.partial_out + row[:, None] * V_DIM + offs_v[None, :],
        acc / divisor[:, None],
        mask=mask_partial[:, None] & mask_v,
    )
    tl.store(states.partial_lse + row, (peak + tl.log2(total)) * LN_2, mask=mask_partial)
