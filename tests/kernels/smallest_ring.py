"""The smallest hand-over between warps of a Gluon program, to be run under compute-sanitizer.

It has what the scout's ring has: 32 lanes store, a warp's barrier, one lane's arrival; and the
words by which Triton starts the warps of any program.
"""

from __future__ import annotations

import torch
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import mbarrier

from bough.kernels.gluon.barriers import new_barriers

NUM_TURNS = 8
ONE_WARP = gl.constexpr(gl.BlockedLayout([1], [32], [1], [0]))
FOUR_WARPS = gl.constexpr(gl.BlockedLayout([1], [32], [4], [0]))


@gluon.jit
def _give(slots, full, empty, num_turns):
    for turn in range(num_turns):
        mbarrier.wait(empty.index(turn % 2), ((turn // 2) & 1) ^ 1)
        slots.index(turn % 2).store((gl.arange(0, 32, layout=ONE_WARP) + turn).to(gl.int64))
        gl.thread_barrier()
        mbarrier.arrive(full.index(turn % 2), count=1)


@gluon.jit
def _take(out_ptr, slots, full, empty, num_turns):
    total = gl.zeros([32], gl.int64, FOUR_WARPS)
    for turn in range(num_turns):
        mbarrier.wait(full.index(turn % 2), (turn // 2) & 1)
        total += slots.index(turn % 2).load(FOUR_WARPS)
        gl.thread_barrier()
        mbarrier.arrive(empty.index(turn % 2), count=1)
    gl.store(out_ptr + gl.arange(0, 32, layout=FOUR_WARPS), total)


@gluon.jit
def hand_over(out_ptr, num_turns):
    """Sum what one warp hands to four, turn by turn, through two slots."""
    slots = gl.allocate_shared_memory(gl.int64, [2, 32], gl.SwizzledSharedLayout(1, 1, 1, [0]))
    full, empty = new_barriers(2, 1), new_barriers(2, 1)
    gl.warp_specialize(
        [
            (_take, (out_ptr, slots, full, empty, num_turns)),
            (_give, (slots, full, empty, num_turns)),
        ],
        [1],
        [40],
    )


def main() -> None:
    """Hand over, and compare the sum."""
    out = torch.empty(32, dtype=torch.int64, device="cuda")
    hand_over[(1,)](out, NUM_TURNS, num_warps=4)
    turns = NUM_TURNS * (NUM_TURNS - 1) // 2
    assert out.tolist() == [lane * NUM_TURNS + turns for lane in range(32)]
    print("the sum is right")


if __name__ == "__main__":
    main()
