"""What kernels take, in groups: each is one argument of a kernel and keeps its names there."""

from __future__ import annotations

from typing import Any, NamedTuple


class Plane(NamedTuple):
    """A plane of stored rows, by page, slot and stored head."""

    ptr: Any
    stride_page: Any
    stride_slot: Any
    stride_head: Any


class Stored(NamedTuple):
    """One layer's planes. The rotary keys have one head; in fp8, values are words of two columns
    and scales words of four exponents.

    A plane that a spec does not have is never read; any other stands in its place.
    """

    key: Any
    value: Any
    rope: Any
    scales: Any


class Queries(NamedTuple):
    """Query rows [num_queries, num_q_heads, qk_dim], the last axis contiguous."""

    ptr: Any
    stride_token: Any
    stride_head: Any


class States(NamedTuple):
    """Where attention states go: final outputs by query, and partials.

    `out` [num_queries, num_q_heads, v_dim] has the queries' dtype; `lse` [num_queries,
    num_q_heads], `partial_out` and `partial_lse` are fp32. All are contiguous.
    """

    out: Any
    lse: Any
    partial_out: Any
    partial_lse: Any


class TileTables(NamedTuple):
    """The tables of `bough.plan.tables.PlanTables` that tiles read; None for what is not there."""

    num_items: Any
    num_claimed: Any
    items: Any
    tile_segment_indptr: Any
    tile_query_begin: Any
    tile_num_queries: Any
    tile_num_heads: Any
    tile_partial_start: Any
    segment_page_start: Any
    segment_first_slot: Any
    segment_position: Any
    segment_len: Any
    query_indices: Any
    query_num_tiles: Any
    query_position: Any
    query_hidden: Any
    pages: Any


class AttentionShape(NamedTuple):
    """What of an attention spec and its pages a kernel is compiled for.

    ROPE_DIM is 0 for untied specs; WINDOW and SOFTCAP are 0 where there is none. HAS_DRAFTS says
    whether queries look up which of the tokens just before them they see. VALUE_SCALE is the place
    of the first scale of a value among a token's four.
    """

    NUM_KV_HEADS: int
    GROUP_SIZE: int
    NOPE_DIM: int
    ROPE_DIM: int
    V_DIM: int
    WINDOW: int
    SOFTCAP: float
    HAS_SINKS: bool
    HAS_DRAFTS: bool
    PAGE_SIZE: int
    IS_FP8: bool
    VALUE_SCALE: int


class BlockShape(NamedTuple):
    """Rows and KV tokens that a program works on at a time, and the loads it has in flight."""

    BLOCK_Q: int
    BLOCK_KV: int
    NUM_STAGES: int
