"""The smallest hand-over between warps of a Gluon program, to be run under compute-sanitizer.

It has what Bough's hand-overs of registers have: some threads store, a barrier among them, one
thread's arrival; and the words by which Triton starts the warps of any program. Run as a script
with the number of warps that give.
"""

from __future__ import annotations

import sys

import torch
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import mbarrier

from bough.kernels.gluon.barriers import new_barriers

NUM_TURNS = 8
NUM_SLOTS = gl.constexpr(128)
FOUR_WARPS = gl.constexpr(gl.BlockedLayout([1], [32], [4], [0]))


@gluon.jit
def _give(slots, full, empty, num_turns):
    LAYOUT: gl.constexpr = gl.BlockedLayout([1], [32], [gl.num_warps()], [0])
    for turn in range(num_turns):
        mbarrier.wait(empty.index(turn % 2), ((turn // 2) & 1) ^ 1)
        number = (gl.arange(0, NUM_SLOTS, layout=LAYOUT) + turn).to(gl.int64)
        slots.index(turn % 2).store(number)
        gl.thread_barrier()
        mbarrier.arrive(full.index(turn % 2), count=1)


@gluon.jit
def _take(out_ptr, slots, full, empty, num_turns):
    total = gl.zeros([NUM_SLOTS], gl.int64, FOUR_WARPS)
    for turn in range(num_turns):
        mbarrier.wait(full.index(turn % 2), (turn // 2) & 1)
        total += slots.index(turn % 2).load(FOUR_WARPS)
        gl.thread_barrier()
        mbarrier.arrive(empty.index(turn % 2), count=1)
    gl.store(out_ptr + gl.arange(0, NUM_SLOTS, layout=FOUR_WARPS), total)


@gluon.jit
def hand_over(out_ptr, num_turns, NUM_GIVERS: gl.constexpr):
    """Sum what some warps hand to four, turn by turn, through two halves of a ring."""
    slots = gl.allocate_shared_memory(
        gl.int64, [2, NUM_SLOTS], gl.SwizzledSharedLayout(1, 1, 1, [0])
    )
    full, empty = new_barriers((2, 2), (1, 1))
    gl.warp_specialize(
        [
            (_take, (out_ptr, slots, full, empty, num_turns)),
            (_give, (slots, full, empty, num_turns)),
        ],
        [NUM_GIVERS],
        [40],
    )


def main(num_givers: int) -> None:
    """Hand over, and compare the sum."""
    out = torch.empty(128, dtype=torch.int64, device="cuda")
    hand_over[(1,)](out, NUM_TURNS, num_givers, num_warps=4)
    turns = NUM_TURNS * (NUM_TURNS - 1) // 2
    assert out.tolist() == [lane * NUM_TURNS + turns for lane in range(128)]
    print("the sum is right")


if __name__ == "__main__":
    main(int(sys.argv[1]))
