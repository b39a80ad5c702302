"""The powers of two that fp8 numbers are multiplied by: onto scores and weights, not onto rows."""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl

# What stored exponents exceed their meaning by.
BIAS = gl.constexpr(127)
# e4m3 numbers times 2 ** 7 are fp16 numbers, too.
_ROOM = gl.constexpr(7)


@gluon.jit
def power(exponent):
    """2 ** (exponent - 127), exactly; 0 for exponents below 1."""
    return (gl.maximum(exponent, 0) << 23).to(gl.float32, bitcast=True)


@gluon.jit
def most_of(words, SCALE: gl.constexpr):
    """The greatest of a block's exponents."""
    # A warp has all words of a block, two a thread.
    WORDS: gl.constexpr = gl.BlockedLayout([2], [32], [gl.num_warps()], [0])
    return gl.max((words.load(WORDS) >> (8 * SCALE)) & 255, 0)


@gluon.jit
def value_unit_of(words, SHAPE: gl.constexpr):
    """Exponent of a unit that none of a block's values exceeds.

    That of tied states is one at least: the rotary key of the same product, which has no exponent,
    shall shrink and never grow.
    """
    unit = most_of(words, SHAPE.VALUE_SCALE)
    return gl.maximum(unit, BIAS) if SHAPE.ROPE_DIM > 0 else unit


@gluon.jit
def token_powers(words, SCALE: gl.constexpr, scores, AXIS: gl.constexpr):
    """Powers of a block's tokens, which lie along the other axis of `scores` than AXIS.

    Args:
        words: [tokens] in shared memory, of four exponents each.
        SCALE: which of them.
    """
    LAYOUT: gl.constexpr = gl.SliceLayout(AXIS, scores.type.layout)
    return gl.expand_dims(power((words.load(LAYOUT) >> (8 * SCALE)) & 255), AXIS)


@gluon.jit
def scale_weights(weight, decay, unit, words, SCALE: gl.constexpr, AXIS: gl.constexpr):
    """Give weights the powers of their values, in a unit that none exceeds.

    Returns the weights, the factor by which former states shrink, and the exponent of the unit.
    """
    SHIFT: gl.constexpr = 8 * SCALE
    next_unit = gl.maximum(unit, most_of(words, SCALE))
    exponent = (words.load(gl.SliceLayout(AXIS, weight.type.layout)) >> SHIFT) & 255
    weight *= gl.expand_dims(power(exponent - next_unit + BIAS), AXIS)
    return weight, decay * power(unit - next_unit + BIAS), next_unit


@gluon.jit
def turned_unit_of(words, SHAPE: gl.constexpr):
    """Exponent of a unit by which a block's values are divided where they become fp16.

    That of tied states is one at least, as above, and seldom more.
    """
    unit = most_of(words, SHAPE.VALUE_SCALE) - _ROOM
    return gl.maximum(unit, BIAS) if SHAPE.ROPE_DIM > 0 else unit
