"""A consumer's half of the columns of latents, in parts of at most 128, which a power is for.

What is said of parts is a tuple with an entry each.
"""

from __future__ import annotations

import triton
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import warpgroup_mma, warpgroup_mma_wait

from bough.fp8 import SCALE_COLUMNS
from bough.kernels.gluon.quantized.operands import load_values
from bough.kernels.gluon.quantized.scales import BIAS, most_of, power

# One a thread, of the words of a block.
_EACH = gl.constexpr(gl.BlockedLayout([1], [32], [4], [0]))


@triton.constexpr_function
def num_parts(v_dim):
    """Products into which a consumer divides its half of the columns."""
    return max(1, v_dim // (2 * SCALE_COLUMNS))


@triton.constexpr_function
def _scale_of(group, part, shape):
    """Which of a token's powers is that of a part of a consumer's columns."""
    columns = shape.V_DIM // (2 * num_parts(shape.V_DIM))
    return (group * num_parts(shape.V_DIM) + part) * columns // SCALE_COLUMNS


@gluon.jit
def greatest_unit(GROUP: gl.constexpr, words, unit, SHAPE: gl.constexpr):
    """A unit that is no less, and exceeded by none of a consumer's columns of a block."""
    NUM_PARTS: gl.constexpr = num_parts(SHAPE.V_DIM)
    for part in gl.static_range(NUM_PARTS):
        unit = gl.maximum(unit, most_of(words, _scale_of(GROUP, part, SHAPE)))
    return unit


@gluon.jit
def store_powers(GROUP: gl.constexpr, shared, first, words, unit, SHAPE: gl.constexpr):
    """Write powers [tokens] of a consumer's columns, relative to a unit that none exceeds."""
    NUM_PARTS: gl.constexpr = num_parts(SHAPE.V_DIM)
    for part in gl.static_range(NUM_PARTS):
        exponent = (words.load(_EACH) >> (8 * _scale_of(GROUP, part, SHAPE))) & 255
        shared.powers.index(first + part).store(power(exponent - unit + BIAS).to(gl.float16))


@gluon.jit
def load_parts(
    GROUP: gl.constexpr,
    shared,
    first,
    staged,
    stage,
    ACROSS: gl.constexpr,
    SHAPE: gl.constexpr,
):
    """A consumer's columns of a block [columns, tokens], with their powers: exactly, if at least
    2 ** -15."""
    NUM_PARTS: gl.constexpr = num_parts(SHAPE.V_DIM)
    states = staged.states.index(stage)
    part = _load_part(GROUP * NUM_PARTS, shared, first, states, ACROSS, SHAPE)
    if NUM_PARTS == 1:
        return (part,)
    else:
        return (part, _load_part(GROUP * 2 + 1, shared, first + 1, states, ACROSS, SHAPE))


@gluon.jit
def _load_part(PLACE: gl.constexpr, shared, at, states, ACROSS: gl.constexpr, SHAPE: gl.constexpr):
    COLUMNS: gl.constexpr = SHAPE.V_DIM // (2 * num_parts(SHAPE.V_DIM))
    values = load_values(states.slice(PLACE * COLUMNS, COLUMNS, dim=1), ACROSS)
    powers = shared.powers.index(at).load(gl.SliceLayout(0, values.type.layout))
    return values * powers[None, :]


@gluon.jit
def add_parts(sums, values, weights):
    """Begin to add weighed values [columns, tokens] of each part."""
    parts = ()
    for part in gl.static_range(len(sums)):
        parts += (warpgroup_mma(values[part], weights, sums[part], is_async=True),)
    return parts


@gluon.jit
def wait_for_parts(sums):
    """Wait for all that was begun to be added."""
    NUM_PARTS: gl.constexpr = len(sums)
    done = warpgroup_mma_wait(0, deps=sums)
    if NUM_PARTS == 1:
        return (done,)
    else:
        return done


@gluon.jit
def scale_parts(sums, factor):
    """Multiply sums [columns, rows] of each part by a number a row."""
    parts = ()
    for part in gl.static_range(len(sums)):
        parts += (sums[part] * factor[None, :],)
    return parts
