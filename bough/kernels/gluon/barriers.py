"""Barriers in shared memory, by which warpgroups tell each other what is there."""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import mbarrier


@gluon.jit
def new_barriers(NUM: gl.constexpr, COUNT: gl.constexpr):
    """Allocate barriers that complete a phase at so many arrivals each."""
    barriers = gl.allocate_shared_memory(gl.int64, [NUM, 1], mbarrier.MBarrierLayout())
    for at in gl.static_range(NUM):
        mbarrier.init(barriers.index(at), count=COUNT)
    return barriers
