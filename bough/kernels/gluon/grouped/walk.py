"""A producer's way through an item: the runs of tokens of its segments, once a round of heads."""

from __future__ import annotations

from typing import Any, NamedTuple

from triton.experimental import gluon
from triton.experimental.gluon import language as gl

from bough.kernels.gluon.grouped.load_queries import NUM_WARPS
from bough.kernels.gluon.grouped.tile import count_lanes, find_segment

# A thread of the producer has tokens of its own.
TOKEN = gl.constexpr(gl.BlockedLayout([1], [32], [NUM_WARPS], [0]))


class Run(NamedTuple):
    """A run of tokens: its pages, the slot of its first token in the first, and its length."""

    pages: Any
    first_slot: Any
    num_tokens: Any


class Walk(NamedTuple):
    """Where a producer is: in a run, that of a segment, at token `low` of it, and at a head."""

    run: Any
    segment: Any
    low: Any
    head: Any


@gluon.jit
def begin_walk(tables, tile):
    """Stand at the first token of an item's first segment, and at its first head."""
    run = Run(tables.pages + tile.page_start, tile.first_slot, tile.num_tokens)
    return Walk(run, tile.first_segment, 0, tile.first_head)


@gluon.jit
def walk_on(tables, tile, walk, num_tokens, may_end):
    """Go on by some tokens, to the next segment where this one ends and a block with it.

    Returns where the producer is then, and whether a new round of heads begins there.
    """
    run, segment, low, head = walk
    low += num_tokens
    is_new_round = False
    if (low >= run.num_tokens) & may_end:
        low = 0
        segment += 1
        is_new_round = segment == tile.last_segment
        segment = gl.where(is_new_round, tile.first_segment, segment)
        head += gl.where(is_new_round, count_lanes(tile) * (1 << tile.pack_bits), 0)
        if tile.last_segment - tile.first_segment > 1:
            run = _find_run(tables, segment, tile)
    return Walk(run, segment, low, head), is_new_round


@gluon.jit
def look_up(walk, token, SHAPE: gl.constexpr):
    """Page of each of some tokens from where the producer is."""
    token += walk.low
    ptrs = walk.run.pages + (walk.run.first_slot + token) // SHAPE.PAGE_SIZE
    return gl.load(ptrs, mask=token < walk.run.num_tokens, other=0)


@gluon.jit
def _find_run(tables, segment, tile):
    _, num_tokens = find_segment(tables, segment, tile.newest)
    return Run(
        tables.pages + gl.load(tables.segment_page_start + segment),
        gl.load(tables.segment_first_slot + segment),
        num_tokens,
    )
