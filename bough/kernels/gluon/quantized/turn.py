"""Values for tiles of many rows, multiplied along tokens, turned to fp16 in shared memory.

Warps of their own do so: a fence waits for all that its thread has begun to copy.
"""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import fence_async_shared, mbarrier

from bough.kernels.gluon.grouped.claim import NUM_CLAIMS, for_each_item, read_number
from bough.kernels.gluon.grouped.tile import FEW_ROWS, count_lanes, count_rounds
from bough.kernels.gluon.quantized.operands import KV
from bough.kernels.gluon.quantized.scales import BIAS, power, turned_unit_of

# Warps of the turner, which share a warpgroup with the scout.
NUM_WARPS = gl.constexpr(2)
# Columns that are turned at a time, by threads of sixteen each.
_COLUMNS = gl.constexpr(64)
_THREADS = gl.constexpr(gl.BlockedLayout([1, 16], [8, 4], [NUM_WARPS.value, 1], [1, 0]))
_ROW = gl.constexpr(gl.SliceLayout(1, _THREADS.value))
_ONE = gl.constexpr(gl.BlockedLayout([1], [32], [NUM_WARPS.value], [0]))
_TOKEN = gl.constexpr(gl.BlockedLayout([2], [32], [NUM_WARPS.value], [0]))


@gluon.jit
def turn_items(shared, SHAPE: gl.constexpr, BLOCK: gl.constexpr):
    """Turn every block of every item of many rows."""
    for_each_item(_turn_item, (shared,), shared.claims, SHAPE, BLOCK)


@gluon.jit
def _turn_item(arguments, turn, tile, SHAPE: gl.constexpr, BLOCK: gl.constexpr):
    """Turn an item's blocks; of few rows, none.

    A barrier's phase is one bit. Who passes items by, the turner or a consumer without rows, could
    be two rounds of a ring ahead of who fills it, and would take a former block for one of its own:
    the turner begins an item when all before it is copied, consumers when all before it is turned.
    """
    (shared,) = arguments
    at = turn % NUM_CLAIMS
    mbarrier.wait(shared.begun.index(at), (turn // NUM_CLAIMS) & 1)
    mbarrier.arrive(shared.turned.begun.index(at), count=1)
    if tile.num_rows > FEW_ROWS:
        first = read_number(shared.turned.first, at)
        for step in range(count_rounds(tile) * count_lanes(tile) * tile.num_blocks):
            _turn_block(shared, tile.block + step, first + step, SHAPE, BLOCK)


@gluon.jit
def _turn_block(shared, block, number, SHAPE: gl.constexpr, BLOCK: gl.constexpr):
    """Write a block's values as fp16, divided by a unit of the block's own.

    Words of untied specs give way to the powers of their keys, as float32. The fence is also for
    what has been copied and is multiplied as it is stored.
    """
    DIM: gl.constexpr = SHAPE.V_DIM
    places = shared.places
    turned = shared.turned
    stage = block % BLOCK.NUM_STAGES
    slot = number % BLOCK.NUM_TURNED
    mbarrier.wait(places.full.index(stage), (block // BLOCK.NUM_STAGES) & 1)
    words = places.words.index(stage)
    unit = turned_unit_of(words, SHAPE)
    own = words.load(_TOKEN)
    exponent = (words.load(_ROW) >> (8 * SHAPE.VALUE_SCALE)) & 255
    factor = power(exponent - unit + BIAS).to(gl.float16)[:, None]
    # All is read before any of it is written, and before there is a place for it.
    rows = places.v_rows.index(stage)
    left = rows.slice(0, _COLUMNS, dim=1).load(_THREADS)
    right = left
    if DIM > _COLUMNS:
        right = rows.slice(_COLUMNS, _COLUMNS, dim=1).load(_THREADS)
    mbarrier.wait(turned.empty.index(slot), ((number // BLOCK.NUM_TURNED) & 1) ^ 1)
    turned.units.index(slot).store(gl.full([1], 0, gl.int32, _ONE) + unit)
    turned_rows = turned.v_rows.index(slot)
    turned_rows.slice(0, _COLUMNS, dim=1).store(left.to(gl.float16) * factor)
    if DIM > _COLUMNS:
        turned_rows.slice(_COLUMNS, _COLUMNS, dim=1).store(right.to(gl.float16) * factor)
    if SHAPE.ROPE_DIM == 0:
        words.store((own & 255) << 23)
    elif unit > BIAS:
        _shrink(places.k_rows.index(stage), unit)
    fence_async_shared()
    gl.thread_barrier()
    mbarrier.arrive(turned.full.index(slot), count=1)


@gluon.jit
def _shrink(rows, unit):
    """Divide rotary keys by the unit of the states with which they are added up."""
    THREADS: gl.constexpr = gl.BlockedLayout([1, 8], [8, 4], [NUM_WARPS, 1], [1, 0])
    NUM_ROWS: gl.constexpr = 32
    factor = power(2 * BIAS - unit).to(gl.bfloat16)
    for first in gl.static_range(0, KV, NUM_ROWS):
        part = rows.slice(first, NUM_ROWS)
        part.store(part.load(THREADS) * factor)
