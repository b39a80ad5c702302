"""The producers where latents are stored in fp8: rows staged as they are, then written as 16 bits.

An e4m3 number times a power of two is a bfloat16 number, so products read the very values that are
stored, and consumers know nothing of fp8.
"""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import async_copy
from triton.experimental.gluon.language.nvidia.hopper import fence_async_shared, mbarrier

from bough.fp8 import SCALE_COLUMNS
from bough.kernels.gluon.latent.stage import (
    ROPE_ROWS,
    copy_block,
    first_block,
    look_up,
    next_block,
)

# Columns that a power is for.
_SCALE_COLUMNS = gl.constexpr(SCALE_COLUMNS)


@gluon.jit
def load_quantized_blocks(
    LOADER: gl.constexpr,
    stored,
    tables,
    work,
    staged,
    buffers,
    SHAPE: gl.constexpr,
    NUM_STAGED: gl.constexpr,
    NUM_LOADERS: gl.constexpr,
):
    """Fill stage after stage with a block's states and rotary keys, zeros beyond its tokens.

    Producer LOADER takes every NUM_LOADERS-th block, and has NUM_STAGED places: while one block is
    turned into 16 bits, others are on their way.
    """
    AHEAD: gl.constexpr = NUM_STAGED - 1
    # Few registers turn few columns at a time.
    COLUMNS: gl.constexpr = 64 if NUM_LOADERS == 2 else 32
    cursor = first_block(tables, work)
    if LOADER == 1:
        cursor = next_block(tables, work, cursor, SHAPE)
    page = look_up(cursor, SHAPE)
    num_own = (work.num_blocks - LOADER + NUM_LOADERS - 1) // NUM_LOADERS
    for turn in range(num_own + AHEAD):
        place = turn % NUM_STAGED * NUM_LOADERS + LOADER
        copy_block(stored, work, staged, cursor, page, place, SHAPE)
        async_copy.commit_group()
        for _ in gl.static_range(NUM_LOADERS):
            cursor = next_block(tables, work, cursor, SHAPE)
        page = look_up(cursor, SHAPE)
        if turn >= AHEAD:
            block = (turn - AHEAD) * NUM_LOADERS + LOADER
            place = (turn - AHEAD) % NUM_STAGED * NUM_LOADERS + LOADER
            stage = block % SHAPE.NUM_STAGES
            async_copy.wait_group(AHEAD)
            gl.thread_barrier()
            mbarrier.wait(buffers.empty.index(stage), ((block // SHAPE.NUM_STAGES) & 1) ^ 1)
            states = buffers.state_blocks.index(stage)
            _turn(staged, place, states, buffers.rope_blocks.index(stage), COLUMNS)
            fence_async_shared()
            gl.thread_barrier()
            mbarrier.arrive(buffers.full.index(stage), count=128)


@gluon.jit
def _turn(staged, place, states, rope, COLUMNS: gl.constexpr):
    """Write a staged block as 16-bit numbers."""
    V_DIM: gl.constexpr = states.shape[1]
    dtype: gl.constexpr = states.dtype
    LAYOUT: gl.constexpr = gl.BlockedLayout(
        [1, 16], [512 // COLUMNS, COLUMNS // 16], [4, 1], [1, 0]
    )
    words = staged.words.index(place).load(gl.SliceLayout(1, LAYOUT))
    rows = staged.states.index(place)
    for low in gl.static_range(0, V_DIM, COLUMNS):
        exponent = (words >> (low // _SCALE_COLUMNS * 8)) & 255
        power = (exponent << 23).to(gl.float32, bitcast=True)
        numbers = rows.slice(low, COLUMNS, dim=1).load(LAYOUT).to(gl.float32)
        states.slice(low, COLUMNS, dim=1).store((numbers * power[:, None]).to(dtype))
    rope.store(staged.rope.index(place).load(ROPE_ROWS).to(dtype))
