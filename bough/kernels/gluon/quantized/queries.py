"""Query rows as products read them: fp16, in place."""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import fence_async_shared

from bough.kernels.gluon.quantized.operands import as_keys

_ROWS = gl.constexpr(gl.BlockedLayout([1, 8], [4, 8], [4, 1], [1, 0]))


@gluon.jit
def turn_queries(tile, SHAPE: gl.constexpr):
    """Write a tile of query rows over as fp16, each part's columns as keys have them.

    e4m3 numbers are fp16 numbers, and queries of bf16 become such once.
    """
    NUM_ROWS: gl.constexpr = tile.shape[0]
    NOPE_DIM: gl.constexpr = SHAPE.NOPE_DIM
    ROPE_DIM: gl.constexpr = SHAPE.ROPE_DIM
    QK_DIM: gl.constexpr = NOPE_DIM + ROPE_DIM
    turned = tile._reinterpret(gl.float16, [NUM_ROWS, QK_DIM], tile.layout)
    nope = tile.slice(0, NOPE_DIM, dim=1).load(_ROWS).to(gl.float16)
    if ROPE_DIM > 0:
        rope = tile.slice(NOPE_DIM, ROPE_DIM, dim=1).load(_ROWS).to(gl.float16)
        gl.thread_barrier()
        turned.slice(NOPE_DIM, ROPE_DIM, dim=1).store(as_keys(rope))
    else:
        gl.thread_barrier()
    turned.slice(0, NOPE_DIM, dim=1).store(as_keys(nope))
    fence_async_shared()
    gl.thread_barrier()
    return turned
