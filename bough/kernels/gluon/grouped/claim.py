"""Which item a program takes next: whoever is free takes the longest that is left."""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import mbarrier

from bough.kernels.gluon.grouped.tile import Tile

# Items of which consumers may lag behind the producer.
NUM_CLAIMS = gl.constexpr(4)
NUM_FIELDS = gl.constexpr(len(Tile._fields))
ONE = gl.constexpr(gl.BlockedLayout([1], [32], [4], [0]))


@gluon.jit
def claim(tables):
    """Take an item behind those that programs begin with."""
    return gl.num_programs(0) + gl.atomic_add(tables.num_claimed, 1, sem="relaxed")


@gluon.jit
def reset_claims(tables):
    """Leave the counters at nothing for the next launch, as the last program to end."""
    done = gl.atomic_add(tables.num_claimed + 1, 1, sem="acq_rel")
    if done == gl.num_programs(0) - 1:
        gl.store(tables.num_claimed, 0)
        gl.store(tables.num_claimed + 1, 0)


@gluon.jit
def publish(claims, turn, tile):
    """Tell the consumers of this program its next item."""
    slot = turn % NUM_CLAIMS
    mbarrier.wait(claims.empty.index(slot), ((turn // NUM_CLAIMS) & 1) ^ 1)
    for at in gl.static_range(NUM_FIELDS):
        claims.numbers.index(slot * NUM_FIELDS + at).store(
            gl.full([1], 0, gl.int32, ONE) + tile[at]
        )
    gl.thread_barrier()
    mbarrier.arrive(claims.full.index(slot), count=1)


@gluon.jit
def next_item(claims, turn):
    """Wait for what the producer publishes; a tile without rows is the end."""
    mbarrier.wait(claims.full.index(turn % NUM_CLAIMS), (turn // NUM_CLAIMS) & 1)
    return read_item(claims, turn)


@gluon.jit
def read_item(claims, turn):
    """Read an item that is not done."""
    first = turn % NUM_CLAIMS * NUM_FIELDS
    return Tile(
        _read(claims, first),
        _read(claims, first + 1),
        _read(claims, first + 2),
        _read(claims, first + 3),
        _read(claims, first + 4),
        _read(claims, first + 5),
        _read(claims, first + 6),
        _read(claims, first + 7),
        _read(claims, first + 8),
        _read(claims, first + 9),
        _read(claims, first + 10),
        _read(claims, first + 11),
        _read(claims, first + 12),
        _read(claims, first + 13),
    )


@gluon.jit
def end_item(claims, turn):
    """Tell the producer that an item is done."""
    gl.thread_barrier()
    mbarrier.arrive(claims.empty.index(turn % NUM_CLAIMS), count=1)


@gluon.jit
def _read(claims, at):
    return gl.max(claims.numbers.index(at).load(ONE), 0)
