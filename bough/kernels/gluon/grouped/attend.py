"""The kernel: a producer and two consumers in each program, which claim the plan's items."""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import fence_async_shared

from bough.kernels.gluon.barriers import new_barriers
from bough.kernels.gluon.grouped.claim import NUM_CLAIMS, NUM_FIELDS, end_item, next_item
from bough.kernels.gluon.grouped.load import load_items
from bough.kernels.gluon.grouped.shared import Claims, Shared
from bough.kernels.gluon.grouped.tall import attend_rows
from bough.kernels.gluon.grouped.thin import attend_columns
from bough.kernels.gluon.grouped.tile import (
    BLOCK_BITS,
    FEW_ROWS,
    MANY_ROWS,
    count_blocks,
    key_columns,
)


@gluon.jit
def attend_grouped(
    queries,
    key,
    value,
    sinks_ptr,
    tables,
    states,
    scale,
    SHAPE: gl.constexpr,
    BLOCK: gl.constexpr,
):
    """Attend all items of a plan; see `bough.kernels.triton.attend_tiles`."""
    dtype: gl.constexpr = queries.ptr.dtype.element_ty
    KV: gl.constexpr = 1 << BLOCK_BITS
    NUM_STAGES: gl.constexpr = BLOCK.NUM_STAGES
    ROWS: gl.constexpr = gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=16, rank=2)
    COLUMNS: gl.constexpr = gl.NVMMASharedLayout(
        swizzle_byte_width=2 * FEW_ROWS, element_bitwidth=16, rank=2
    )
    NUMBER: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [0])
    # Each consumer has two query tiles: one that it reads, one that is copied.
    QK_DIM: gl.constexpr = SHAPE.NOPE_DIM + SHAPE.ROPE_DIM
    q_tiles = gl.allocate_shared_memory(dtype, [4, MANY_ROWS, QK_DIM], ROWS)
    k_blocks = gl.allocate_shared_memory(dtype, [NUM_STAGES, KV, key_columns(SHAPE)], ROWS)
    v_blocks = gl.allocate_shared_memory(dtype, [NUM_STAGES, KV, SHAPE.V_DIM], ROWS)
    weights = gl.allocate_shared_memory(dtype, [2, KV, FEW_ROWS], COLUMNS)
    numbers = gl.allocate_shared_memory(gl.int32, [NUM_CLAIMS * NUM_FIELDS, 1], NUMBER)
    # Every thread of the producer tells of its own copies.
    shared = Shared(
        claims=Claims(numbers, new_barriers(NUM_CLAIMS, 1), new_barriers(NUM_CLAIMS, 2)),
        q_tiles=q_tiles,
        q_full=new_barriers(4, 128),
        q_empty=new_barriers(4, 1),
        k_blocks=k_blocks,
        k_full=new_barriers(NUM_STAGES, 128),
        k_empty=new_barriers(NUM_STAGES, 2),
        v_blocks=v_blocks,
        v_full=new_barriers(NUM_STAGES, 128),
        v_empty=new_barriers(NUM_STAGES, 2),
    )
    fence_async_shared()
    outer = (sinks_ptr, tables, states, scale, shared)
    gl.warp_specialize(
        [
            (_attend_items, (0, outer, weights.index(0), SHAPE, BLOCK)),
            (_attend_items, (1, outer, weights.index(1), SHAPE, BLOCK)),
            (load_items, (queries, key, value, tables, shared, SHAPE, BLOCK)),
        ],
        [4, 4],
        [BLOCK.CONSUMER_REGISTERS, BLOCK.PRODUCER_REGISTERS],
    )


@gluon.jit
def _attend_items(GROUP: gl.constexpr, outer, weights, SHAPE: gl.constexpr, BLOCK: gl.constexpr):
    """One consumer: its part of every item that the producer claims."""
    _, tables, _, _, shared = outer
    turn = 0
    tile = next_item(shared.claims, turn)
    while tile.num_rows > 0:
        num_blocks = count_blocks(tables, tile)
        if BLOCK.HAS_FEW and tile.num_rows <= FEW_ROWS:
            attend_columns(GROUP, outer, weights, tile, num_blocks, SHAPE, BLOCK)
        if BLOCK.HAS_MANY and (tile.num_rows > FEW_ROWS) & (tile.num_rows <= MANY_ROWS):
            attend_rows(GROUP, outer, turn, tile, num_blocks, SHAPE, BLOCK, False)
        if BLOCK.TALL_BITS > 0 and tile.num_rows > MANY_ROWS:
            attend_rows(GROUP, outer, turn, tile, num_blocks, SHAPE, BLOCK, True)
        end_item(shared.claims, turn)
        turn += 1
        tile = next_item(shared.claims, turn)
