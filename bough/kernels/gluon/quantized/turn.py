"""Blocks for tiles of many rows, which several products read, turned to fp16 in shared memory.

Warps of their own do so: a fence waits for all that its thread has begun to copy.
"""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import fence_async_shared, mbarrier

from bough.kernels.gluon.grouped.claim import NUM_CLAIMS, for_each_item, read_number
from bough.kernels.gluon.grouped.tile import FEW_ROWS, count_lanes, count_rounds
from bough.kernels.gluon.quantized.operands import KV
from bough.kernels.gluon.quantized.scales import BIAS, power, value_unit_of

# Warps of the turner, which share a warpgroup with the scout.
NUM_WARPS = gl.constexpr(2)
# Columns that are turned at a time, by threads of sixteen each.
_COLUMNS = gl.constexpr(64)
_THREADS = gl.constexpr(gl.BlockedLayout([1, 16], [8, 4], [NUM_WARPS.value, 1], [1, 0]))
_ROW = gl.constexpr(gl.SliceLayout(1, _THREADS.value))
_ONE = gl.constexpr(gl.BlockedLayout([1], [32], [NUM_WARPS.value], [0]))


@gluon.jit
def turn_items(shared, SHAPE: gl.constexpr, BLOCK: gl.constexpr):
    """Turn every block of every item of many rows."""
    for_each_item(_turn_item, (shared,), shared.claims, SHAPE, BLOCK)


@gluon.jit
def _turn_item(arguments, turn, tile, SHAPE: gl.constexpr, BLOCK: gl.constexpr):
    """Turn an item's blocks, those of either lane in its own units; of few rows, none.

    A barrier's phase is one bit. Who passes items by, the turner or a consumer without rows, could
    be two rounds of a ring ahead of who fills it, and would take a former block for one of its own:
    the turner begins an item when all before it is copied, consumers when all before it is turned.
    """
    (shared,) = arguments
    at = turn % NUM_CLAIMS
    mbarrier.wait(shared.begun.index(at), (turn // NUM_CLAIMS) & 1)
    mbarrier.arrive(shared.turned.begun.index(at), count=1)
    if tile.num_rows > FEW_ROWS:
        _turn_blocks(shared, turn, tile, SHAPE, BLOCK)


@gluon.jit
def _turn_blocks(shared, turn, tile, SHAPE: gl.constexpr, BLOCK: gl.constexpr):
    lanes = count_lanes(tile)
    block = tile.block
    number = read_number(shared.turned.first, turn % NUM_CLAIMS)
    for _round in range(count_rounds(tile)):
        unit_0 = 0
        unit_1 = 0
        for _step in range(tile.num_blocks):
            for lane in range(lanes):
                before = gl.where(lane == 0, unit_0, unit_1)
                unit = _turn_block(shared, block, number, before, SHAPE, BLOCK)
                unit_0 = gl.where(lane == 0, unit, unit_0)
                unit_1 = gl.where(lane == 0, unit_1, unit)
                block += 1
                number += 1


@gluon.jit
def _turn_block(shared, block, number, unit, SHAPE: gl.constexpr, BLOCK: gl.constexpr):
    """Turn what is to be read as fp16 of a block, in a unit of at least exponent `unit`.

    Returns the exponent of the unit.
    """
    places = shared.places
    turned = shared.turned
    stage = block % BLOCK.NUM_STAGES
    slot = number % BLOCK.NUM_TURNED
    mbarrier.wait(places.full.index(stage), (block // BLOCK.NUM_STAGES) & 1)
    words = places.words.index(stage)
    unit = gl.maximum(unit, value_unit_of(words, SHAPE))
    shift = ((words.load(_ROW) >> (8 * SHAPE.VALUE_SCALE)) & 255) - unit
    mbarrier.wait(turned.empty.index(slot), ((number // BLOCK.NUM_TURNED) & 1) ^ 1)
    turned.units.index(slot).store(gl.full([1], 0, gl.int32, _ONE) + unit)
    if SHAPE.ROPE_DIM > 0:
        none = gl.full([KV], 0, gl.int32, _ROW)
        _turn(places.k_rows.index(stage), turned.k_rows.index(slot), none + BIAS - unit)
    _turn(places.v_rows.index(stage), turned.v_rows.index(slot), shift)
    fence_async_shared()
    gl.thread_barrier()
    mbarrier.arrive(turned.full.index(slot), count=1)
    # Consumers read the keys of untied specs for themselves, and give them back.
    mbarrier.arrive(places.empty.index(stage), count=3 if SHAPE.ROPE_DIM > 0 else 1)
    return unit


@gluon.jit
def _turn(rows, turned, shift):
    """Write rows as fp16, each times 2 ** shift."""
    DIM: gl.constexpr = rows.shape[1]
    factor = power(shift + BIAS).to(gl.float16)[:, None]
    for low in gl.static_range(0, DIM, _COLUMNS):
        numbers = rows.slice(low, _COLUMNS, dim=1).load(_THREADS).to(gl.float16)
        turned.slice(low, _COLUMNS, dim=1).store(numbers * factor)
