"""The kernel: a scout, a producer and two consumers in each program."""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import fence_async_shared

from bough.kernels.gluon.barriers import new_barriers
from bough.kernels.gluon.grouped.claim import for_each_item, new_claims
from bough.kernels.gluon.grouped.load_queries import NUM_WARPS
from bough.kernels.gluon.grouped.scout import scout_items
from bough.kernels.gluon.grouped.shared import Call
from bough.kernels.gluon.grouped.tile import FEW_ROWS, key_columns
from bough.kernels.gluon.quantized.columns import attend_columns
from bough.kernels.gluon.quantized.load import load_items
from bough.kernels.gluon.quantized.operands import KV, staged_layout
from bough.kernels.gluon.quantized.shared import Places, Shared


@gluon.jit
def attend_quantized_heads(
    queries,
    kv,
    sinks_ptr,
    tables,
    states,
    scale,
    SHAPE: gl.constexpr,
    BLOCK: gl.constexpr,
):
    """Attend all items of a plan; see `bough.kernels.triton.attend_tiles`."""
    NUM_STAGES: gl.constexpr = BLOCK.NUM_STAGES
    K_DIM: gl.constexpr = key_columns(SHAPE)
    QK_DIM: gl.constexpr = SHAPE.NOPE_DIM + SHAPE.ROPE_DIM
    key_dtype: gl.constexpr = kv.key.ptr.dtype.element_ty
    KEYS: gl.constexpr = staged_layout(K_DIM, key_dtype.primitive_bitwidth // 8)
    VALUES: gl.constexpr = staged_layout(SHAPE.V_DIM, 1)
    TILE: gl.constexpr = gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=16, rank=2)
    WEIGHTS: gl.constexpr = gl.NVMMASharedLayout(
        swizzle_byte_width=2 * FEW_ROWS, element_bitwidth=16, rank=2
    )
    NUMBER: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [0])
    keys = gl.allocate_shared_memory(key_dtype, [NUM_STAGES, KV, K_DIM], KEYS)
    values = gl.allocate_shared_memory(gl.float8e4nv, [NUM_STAGES, KV, SHAPE.V_DIM], VALUES)
    words = gl.allocate_shared_memory(gl.int32, [NUM_STAGES, KV], NUMBER)
    # Each consumer has two query tiles: one that it reads, one that is copied.
    q_tiles = gl.allocate_shared_memory(queries.ptr.dtype.element_ty, [4, FEW_ROWS, QK_DIM], TILE)
    weights = gl.allocate_shared_memory(gl.float16, [2, KV, FEW_ROWS], WEIGHTS)
    # Every thread of the producer tells of its own copies.
    full, empty, q_full, q_empty = new_barriers((NUM_STAGES, NUM_STAGES, 4, 4), (128, 2, 128, 1))
    shared = Shared(
        claims=new_claims(),
        q_tiles=q_tiles,
        q_full=q_full,
        q_empty=q_empty,
        places=Places(keys, values, words, full, empty),
    )
    fence_async_shared()
    call = Call(sinks_ptr, tables, states, scale, shared)
    gl.warp_specialize(
        [
            (_attend_items, (0, call, weights.index(0), SHAPE, BLOCK)),
            (_attend_items, (1, call, weights.index(1), SHAPE, BLOCK)),
            (load_items, (queries, kv, tables, shared, SHAPE, BLOCK)),
            (scout_items, (tables, shared, SHAPE, BLOCK)),
        ],
        [4, NUM_WARPS, 1],
        [BLOCK.CONSUMER_REGISTERS, BLOCK.PRODUCER_REGISTERS, BLOCK.SCOUT_REGISTERS],
    )


@gluon.jit
def _attend_items(GROUP: gl.constexpr, call, weights, SHAPE: gl.constexpr, BLOCK: gl.constexpr):
    """One consumer: its part of every item that the scout takes."""
    arguments = (GROUP, call, weights)
    for_each_item(_attend_item, arguments, call.shared.claims, SHAPE, BLOCK)


@gluon.jit
def _attend_item(arguments, turn, tile, SHAPE: gl.constexpr, BLOCK: gl.constexpr):
    GROUP, call, weights = arguments
    attend_columns(GROUP, call, weights, turn, tile, SHAPE, BLOCK)
