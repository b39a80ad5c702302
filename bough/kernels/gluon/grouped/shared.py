"""What a program's producer and consumers share: blocks in shared memory, and their barriers."""

from __future__ import annotations

from typing import Any, NamedTuple

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import mbarrier


class Shared(NamedTuple):
    """Rings of query tiles, two a consumer, and of blocks of keys and values.

    For tiles of few rows each consumer has weights [tokens, rows] of a block, and what its warps
    have told each other [warps, rows].
    """

    claims: Any
    q_tiles: Any
    q_full: Any
    q_empty: Any
    k_blocks: Any
    k_full: Any
    k_empty: Any
    v_blocks: Any
    v_full: Any
    v_empty: Any
    weights: Any
    told: Any


class Call(NamedTuple):
    """What every consumer has of a call."""

    sinks_ptr: Any
    tables: Any
    states: Any
    scale: Any
    shared: Any


@gluon.jit
def release_block(empty, stage, is_tall, NUM_PLACES: gl.constexpr):
    """Give a block back: two consumers read those of tall tiles, one answers for both of others."""
    for at in gl.static_range(NUM_PLACES):
        mbarrier.arrive(empty.index(stage + at), count=1)
        mbarrier.arrive(empty.index(stage + at), count=1, pred=is_tall == 0)


@gluon.jit
def next_stage(stage, phase, lanes, NUM_STAGES: gl.constexpr):
    """The place of a lane's next block in a ring, and its phase there."""
    stage += lanes
    is_round = stage >= NUM_STAGES
    return gl.where(is_round, stage - NUM_STAGES, stage), gl.where(is_round, phase ^ 1, phase)


@gluon.jit
def as_blocks(places, BLOCK: gl.constexpr):
    """The same places block by block."""
    KV: gl.constexpr = BLOCK.NUM_PLACES * places.shape[1]
    DIM: gl.constexpr = places.shape[2]
    NUM: gl.constexpr = BLOCK.NUM_STAGES // BLOCK.NUM_PLACES
    return places._reinterpret(places.dtype, [NUM, KV, DIM], places.layout)
