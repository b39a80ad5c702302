"""Numbers that are worked out where they are needed.

The compiler works out what never changes before the first loop, and keeps it in registers from then
on: every column of a thread, every address that follows from its place. Where registers are scarce,
what it believes to depend on a loop's own number is worked out there.
"""

from __future__ import annotations

import triton
from triton.experimental import gluon
from triton.experimental.gluon import language as gl


@gluon.jit
def late(number, when):
    """The same int32, known no earlier than `when`, as far as the compiler can tell."""
    return gl.inline_asm_elementwise(
        "mov.b32 $0, $1; // $2", "=r,r,r", [number, when], dtype=gl.int32, is_pure=True, pack=1
    )


@triton.constexpr_function
def _own_bits(layout):
    """Bits in which threads differ, of places along a side of a product, a `SliceLayout`: in its
    height all but 8, in its width those below."""
    return ~8 if layout.dim == 1 else 7


@gluon.jit
def late_range(NUM: gl.constexpr, LAYOUT: gl.constexpr, when):
    """arange(NUM) along a side of a product, worked out no earlier than `when` is known.

    Of a number the bits in which threads differ are; all else is known when the kernel is compiled.
    """
    OWN: gl.constexpr = _own_bits(LAYOUT)
    offs = gl.arange(0, NUM, layout=LAYOUT)
    return late(offs & OWN, when) + (offs & ~OWN)
