"""The items that a program takes, as a ring in shared memory: its scout tells, the others read."""

from __future__ import annotations

from typing import Any, NamedTuple

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import mbarrier

from bough.kernels.gluon.barriers import new_barriers
from bough.kernels.gluon.grouped.tile import MOST_ROWS, Rows, Tile

# Items that consumers may lag behind the producer.
NUM_CLAIMS = gl.constexpr(4)
NUM_FIELDS = gl.constexpr(len(Tile._fields))
NUM_ARRAYS = gl.constexpr(len(Rows._fields))


class Claims(NamedTuple):
    """The ring: numbers of each item, arrays of its rows, and who may write or read them.

    The producer completes `wanted` when it nears the end of an item.
    """

    numbers: Any
    arrays: Any
    full: Any
    empty: Any
    wanted: Any


@gluon.jit
def new_claims(NUM_READERS: gl.constexpr):
    """Allocate the ring, from which so many read."""
    FLAT: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [0])
    numbers = gl.allocate_shared_memory(gl.int64, [NUM_CLAIMS * NUM_FIELDS, 1], FLAT)
    arrays = gl.allocate_shared_memory(gl.int32, [NUM_CLAIMS * NUM_ARRAYS, MOST_ROWS], FLAT)
    full, empty, wanted = new_barriers((NUM_CLAIMS, NUM_CLAIMS, 1), (1, NUM_READERS, 1))
    return Claims(numbers, arrays, full, empty, wanted)


@gluon.jit
def for_each_item(RUN: gl.constexpr, arguments, claims, SHAPE: gl.constexpr, BLOCK: gl.constexpr):
    """Run `RUN(arguments, turn, tile, SHAPE, BLOCK)` on every item that the scout takes.

    Turns are counted in twos of rounds of the ring: its phases say no more.
    """
    turn = 0
    tile = _next_item(claims, turn)
    while tile.num_rows > 0:
        RUN(arguments, turn, tile, SHAPE, BLOCK)
        _end_item(claims, turn)
        turn = (turn + 1) & (2 * NUM_CLAIMS - 1)
        tile = _next_item(claims, turn)


@gluon.jit
def _next_item(claims, turn):
    """Wait for what the scout publishes; a tile without rows is the end."""
    mbarrier.wait(claims.full.index(turn % NUM_CLAIMS), (turn // NUM_CLAIMS) & 1)
    return read_item(claims, turn)


@gluon.jit
def _end_item(claims, turn):
    """Tell the scout that an item is done with."""
    gl.thread_barrier()
    mbarrier.arrive(claims.empty.index(turn % NUM_CLAIMS), count=1)


@gluon.jit
def read_item(claims, turn):
    """Read an item that is not done."""
    first = turn % NUM_CLAIMS * NUM_FIELDS
    return Tile(
        read_number(claims.numbers, first),
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
        _read(claims, first + 14),
        _read(claims, first + 15),
        _read(claims, first + 16),
        _read(claims, first + 17),
    )


@gluon.jit
def read_rows(claims, turn, half, NUM: gl.constexpr, LAYOUT: gl.constexpr):
    """Read the first NUM rows of a half of an item."""
    NUM_HALVES: gl.constexpr = 2 * NUM_CLAIMS * NUM_ARRAYS
    halves = claims.arrays._reinterpret(
        gl.int32, [NUM_HALVES, MOST_ROWS // 2], claims.arrays.layout
    )
    first = turn % NUM_CLAIMS * (2 * NUM_ARRAYS) + half
    return Rows(
        halves.index(first).slice(0, NUM).load(LAYOUT),
        halves.index(first + 2).slice(0, NUM).load(LAYOUT),
        halves.index(first + 4).slice(0, NUM).load(LAYOUT),
    )


@gluon.jit
def _read(claims, at):
    return read_number(claims.numbers, at).to(gl.int32)


@gluon.jit
def read_number(numbers, at):
    """One of the numbers [n, 1] in shared memory."""
    ONE: gl.constexpr = gl.BlockedLayout([1], [32], [gl.num_warps()], [0])
    return gl.max(numbers.index(at).load(ONE), 0)
