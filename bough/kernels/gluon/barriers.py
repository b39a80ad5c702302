"""Barriers in shared memory, by which warpgroups tell each other what is there."""

from __future__ import annotations

import triton
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import mbarrier


@triton.constexpr_function
def _most(nums):
    return max(nums)


@gluon.jit
def new_barriers(NUMS: gl.constexpr, COUNTS: gl.constexpr):
    """Allocate groups of so many barriers each, which complete a phase at so many arrivals.

    The first of all groups are set up together, then the second: between two of one group the
    compiler has all threads wait for each other.
    """
    groups = [
        gl.allocate_shared_memory(gl.int64, [NUM, 1], mbarrier.MBarrierLayout()) for NUM in NUMS
    ]
    for at in gl.static_range(_most(NUMS)):
        for group in gl.static_range(len(NUMS)):
            if at < NUMS[group]:
                mbarrier.init(groups[group].index(at), count=COUNTS[group])
    return groups
