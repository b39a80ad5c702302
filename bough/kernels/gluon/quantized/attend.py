"""The kernel: a scout, a producer, two consumers and maybe a turner in each program."""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import fence_async_shared

from bough.kernels.gluon.barriers import new_barriers
from bough.kernels.gluon.by_warp import new_told
from bough.kernels.gluon.grouped.claim import NUM_CLAIMS, for_each_item, new_claims
from bough.kernels.gluon.grouped.load_queries import NUM_WARPS
from bough.kernels.gluon.grouped.scout import scout_items
from bough.kernels.gluon.grouped.shared import Call
from bough.kernels.gluon.grouped.tile import FEW_ROWS, MANY_ROWS, key_columns
from bough.kernels.gluon.quantized.columns import attend_columns
from bough.kernels.gluon.quantized.load import load_items
from bough.kernels.gluon.quantized.operands import KV, multiplied_layout
from bough.kernels.gluon.quantized.rows import attend_rows
from bough.kernels.gluon.quantized.shared import Places, Shared, Turned
from bough.kernels.gluon.quantized.turn import NUM_WARPS as NUM_TURNERS
from bough.kernels.gluon.quantized.turn import turn_items

_TILE = gl.constexpr(gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=16, rank=2))
_NUMBER = gl.constexpr(gl.SwizzledSharedLayout(1, 1, 1, [0]))
_NUM_LOADERS = gl.constexpr(32 * NUM_WARPS.value)


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
    QK_DIM: gl.constexpr = SHAPE.NOPE_DIM + SHAPE.ROPE_DIM
    ROWS: gl.constexpr = MANY_ROWS if BLOCK.HAS_MANY else FEW_ROWS
    WEIGHTS: gl.constexpr = gl.NVMMASharedLayout(
        swizzle_byte_width=2 * FEW_ROWS, element_bitwidth=16, rank=2
    )
    begun, q_full, q_empty = new_barriers((NUM_CLAIMS, 4, 4), (_NUM_LOADERS, _NUM_LOADERS, 1))
    shared = Shared(
        # Read by two consumers, the producer, and the turner where there is one.
        claims=new_claims(4 if BLOCK.HAS_MANY else 3),
        begun=begun,
        # Each consumer has two query tiles: one that it reads, one that is copied.
        q_tiles=gl.allocate_shared_memory(queries.ptr.dtype.element_ty, [4, ROWS, QK_DIM], _TILE),
        q_powers=gl.allocate_shared_memory(gl.float32, [4, ROWS], _NUMBER),
        q_full=q_full,
        q_empty=q_empty,
        places=_new_places(kv.key.ptr.dtype.element_ty, SHAPE, BLOCK),
        turned=_new_turned(SHAPE, BLOCK) if BLOCK.HAS_MANY else None,
        weights=gl.allocate_shared_memory(gl.float16, [2, KV, FEW_ROWS], WEIGHTS),
        told=new_told(2, 4, FEW_ROWS),
    )
    fence_async_shared()
    call = Call(sinks_ptr, tables, states, scale, shared)
    if BLOCK.HAS_MANY:
        gl.warp_specialize(
            [
                (_attend_items, (0, call, SHAPE, BLOCK)),
                (_attend_items, (1, call, SHAPE, BLOCK)),
                (load_items, (queries, kv, tables, shared, SHAPE, BLOCK)),
                (turn_items, (shared, SHAPE, BLOCK)),
                (scout_items, (tables, shared, SHAPE, BLOCK)),
            ],
            [4, NUM_WARPS, NUM_TURNERS, 1],
            [
                BLOCK.CONSUMER_REGISTERS,
                BLOCK.PRODUCER_REGISTERS,
                BLOCK.SCOUT_REGISTERS,
                BLOCK.SCOUT_REGISTERS,
            ],
        )
    else:
        gl.warp_specialize(
            [
                (_attend_items, (0, call, SHAPE, BLOCK)),
                (_attend_items, (1, call, SHAPE, BLOCK)),
                (load_items, (queries, kv, tables, shared, SHAPE, BLOCK)),
                (scout_items, (tables, shared, SHAPE, BLOCK)),
            ],
            [4, NUM_WARPS, 1],
            [BLOCK.CONSUMER_REGISTERS, BLOCK.PRODUCER_REGISTERS, BLOCK.SCOUT_REGISTERS],
        )


@gluon.jit
def _new_places(key_dtype: gl.constexpr, SHAPE: gl.constexpr, BLOCK: gl.constexpr):
    """Allocate the ring of blocks as they are stored."""
    NUM: gl.constexpr = BLOCK.NUM_STAGES
    K_DIM: gl.constexpr = key_columns(SHAPE)
    KEYS: gl.constexpr = multiplied_layout(K_DIM, key_dtype.primitive_bitwidth // 8)
    VALUES: gl.constexpr = multiplied_layout(SHAPE.V_DIM, 1)
    # Every thread of the producer tells of its own copies.
    full, empty = new_barriers((NUM, NUM), (_NUM_LOADERS, 2))
    return Places(
        gl.allocate_shared_memory(key_dtype, [NUM, KV, K_DIM], KEYS),
        gl.allocate_shared_memory(gl.float8e4nv, [NUM, KV, SHAPE.V_DIM], VALUES),
        gl.allocate_shared_memory(gl.int32, [NUM, KV], _NUMBER),
        full,
        empty,
    )


@gluon.jit
def _new_turned(SHAPE: gl.constexpr, BLOCK: gl.constexpr):
    """Allocate the ring of turned blocks: an even number, so that either consumer of two finds its
    own in the same places."""
    NUM: gl.constexpr = BLOCK.NUM_TURNED
    v_rows = gl.allocate_shared_memory(gl.float16, [NUM, KV, SHAPE.V_DIM], _TILE)
    units = gl.allocate_shared_memory(gl.int32, [NUM, 1], _NUMBER)
    first = gl.allocate_shared_memory(gl.int32, [NUM_CLAIMS, 1], _NUMBER)
    begun, full, empty = new_barriers((NUM_CLAIMS, NUM, NUM), (1, 1, 2))
    return Turned(first, begun, v_rows, units, full, empty)


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
