"""Attention of many rows of latents in fp8: the consumers of `narrow`, and producers that write
16 bits.

Tiles of at most 64 rows have one consumer and two producers, others two consumers and one producer.
"""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import fence_async_shared

from bough.kernels.gluon.barriers import new_barriers
from bough.kernels.gluon.latent.dequantize import load_quantized_blocks
from bough.kernels.gluon.latent.narrow import Buffers, attend_rows
from bough.kernels.gluon.latent.stage import stage_blocks
from bough.kernels.gluon.latent.walk import find_work


@gluon.jit
def attend_quantized(
    queries,
    stored,
    sinks_ptr,
    tables,
    states,
    scale,
    SHAPE: gl.constexpr,
    REGISTERS: gl.constexpr,
    NUM_STAGED: gl.constexpr,
):
    """Attend up to 64 rows a consumer to segments; each producer stages NUM_STAGED blocks."""
    NUM_STAGES: gl.constexpr = SHAPE.NUM_STAGES
    NUM_CONSUMERS: gl.constexpr = SHAPE.BLOCK_ROWS // 64
    NUM_LOADERS: gl.constexpr = 3 - NUM_CONSUMERS
    dtype: gl.constexpr = queries.ptr.dtype.element_ty
    work = find_work(tables, SHAPE)
    TILE: gl.constexpr = gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=16, rank=2)
    ROPE: gl.constexpr = gl.NVMMASharedLayout(
        swizzle_byte_width=SHAPE.ROPE_DIM * 2, element_bitwidth=16, rank=2
    )
    q_nope = gl.allocate_shared_memory(dtype, [NUM_CONSUMERS, 64, SHAPE.V_DIM], TILE)
    q_rope = gl.allocate_shared_memory(dtype, [NUM_CONSUMERS, 64, SHAPE.ROPE_DIM], ROPE)
    state_blocks = gl.allocate_shared_memory(dtype, [NUM_STAGES, SHAPE.BLOCK_KV, SHAPE.V_DIM], TILE)
    rope_blocks = gl.allocate_shared_memory(
        dtype, [NUM_STAGES, SHAPE.BLOCK_KV, SHAPE.ROPE_DIM], ROPE
    )
    full, empty, turns = new_barriers((NUM_STAGES, NUM_STAGES, 2), (128, NUM_CONSUMERS, 1))
    fence_async_shared()
    buffers = Buffers(q_nope, q_rope, state_blocks, rope_blocks, full, empty, turns)
    staged = stage_blocks(NUM_STAGED * NUM_LOADERS, SHAPE)
    gl.warp_specialize(
        [
            (attend_rows, (queries, sinks_ptr, tables, states, scale, work, buffers, SHAPE, 0)),
            (_second, (
                queries, stored, sinks_ptr, tables, states, scale, work, staged, buffers, SHAPE,
                NUM_STAGED, NUM_LOADERS,
            )),
            (load_quantized_blocks, (
                0, stored, tables, work, staged, buffers, SHAPE, NUM_STAGED, NUM_LOADERS,
            )),
        ],
        [4, 4],
        [REGISTERS.second, REGISTERS.third],
    )  # fmt: skip


@gluon.jit
def _second(
    queries,
    stored,
    sinks_ptr,
    tables,
    states,
    scale,
    work,
    staged,
    buffers,
    SHAPE: gl.constexpr,
    NUM_STAGED: gl.constexpr,
    NUM_LOADERS: gl.constexpr,
):
    """The second warpgroup: a producer beside one consumer, else a consumer."""
    if NUM_LOADERS == 2:
        load_quantized_blocks(
            1, stored, tables, work, staged, buffers, SHAPE, NUM_STAGED, NUM_LOADERS
        )
    else:
        attend_rows(queries, sinks_ptr, tables, states, scale, work, buffers, SHAPE, 1)
