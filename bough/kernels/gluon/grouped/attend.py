"""The kernel: a scout, a producer and two consumers in each program."""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import fence_async_shared

from bough.kernels.gluon.barriers import new_barriers
from bough.kernels.gluon.by_warp import new_told
from bough.kernels.gluon.grouped.claim import for_each_item, new_claims
from bough.kernels.gluon.grouped.few import attend_columns
from bough.kernels.gluon.grouped.load import load_items
from bough.kernels.gluon.grouped.load_queries import NUM_WARPS
from bough.kernels.gluon.grouped.many import attend_rows
from bough.kernels.gluon.grouped.scout import scout_items
from bough.kernels.gluon.grouped.shared import Call, Shared
from bough.kernels.gluon.grouped.tile import (
    BLOCK_BITS,
    FEW_ROWS,
    MANY_ROWS,
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
    # Each consumer has two query tiles: one that it reads, one that is copied.
    QK_DIM: gl.constexpr = SHAPE.NOPE_DIM + SHAPE.ROPE_DIM
    q_tiles = gl.allocate_shared_memory(dtype, [4, MANY_ROWS, QK_DIM], ROWS)
    k_blocks = gl.allocate_shared_memory(dtype, [NUM_STAGES, KV, key_columns(SHAPE)], ROWS)
    v_blocks = gl.allocate_shared_memory(dtype, [NUM_STAGES, KV, SHAPE.V_DIM], ROWS)
    # Every thread of the producer tells of its own copies.
    NUM_LOADERS: gl.constexpr = 32 * NUM_WARPS
    k_full, v_full, k_empty, v_empty, q_full, q_empty = new_barriers(
        (NUM_STAGES, NUM_STAGES, NUM_STAGES, NUM_STAGES, 4, 4),
        (NUM_LOADERS, NUM_LOADERS, 2, 2, NUM_LOADERS, 1),
    )
    shared = Shared(
        # Read by two consumers and the producer.
        claims=new_claims(3),
        q_tiles=q_tiles,
        q_full=q_full,
        q_empty=q_empty,
        k_blocks=k_blocks,
        k_full=k_full,
        k_empty=k_empty,
        v_blocks=v_blocks,
        v_full=v_full,
        v_empty=v_empty,
        weights=gl.allocate_shared_memory(dtype, [2, KV, FEW_ROWS], COLUMNS),
        told=new_told(2, 4, FEW_ROWS),
    )
    fence_async_shared()
    call = Call(sinks_ptr, tables, states, scale, shared)
    gl.warp_specialize(
        [
            (_attend_items, (0, call, SHAPE, BLOCK)),
            (_attend_items, (1, call, SHAPE, BLOCK)),
            (load_items, (queries, key, value, tables, shared, SHAPE, BLOCK)),
            (scout_items, (tables, shared, SHAPE, BLOCK)),
        ],
        [4, NUM_WARPS, 1],
        [BLOCK.CONSUMER_REGISTERS, BLOCK.PRODUCER_REGISTERS, BLOCK.SCOUT_REGISTERS],
    )


@gluon.jit
def _attend_items(GROUP: gl.constexpr, call, SHAPE: gl.constexpr, BLOCK: gl.constexpr):
    """One consumer: its part of every item that the scout takes."""
    for_each_item(_attend_item, (GROUP, call), call.shared.claims, SHAPE, BLOCK)


@gluon.jit
def _attend_item(arguments, turn, tile, SHAPE: gl.constexpr, BLOCK: gl.constexpr):
    GROUP, call = arguments
    if BLOCK.HAS_FEW and tile.num_rows <= FEW_ROWS:
        attend_columns(GROUP, call, turn, tile, SHAPE, BLOCK)
    if BLOCK.HAS_MANY and tile.num_rows > FEW_ROWS:
        attend_rows(GROUP, call, turn, tile, SHAPE, BLOCK)
