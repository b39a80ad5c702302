"""The union of two states of each query: on a GPU where there is one, else in the interpreter."""

from __future__ import annotations

import torch

from bough.kernels.triton.join_states import join_states

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def test_states_in_any_strides_are_weighed_by_their_log_sum_exp() -> None:
    above, below = (torch.randn(heads, 3, 20, device=DEVICE) for heads in (5, 5))
    above_lse, below_lse = torch.randn(5, 3, device=DEVICE), torch.randn(3, 5, device=DEVICE)
    below_lse[1, 2] = -torch.inf
    below[2, 1] = 0
    out, lse = torch.full((3, 5, 20), torch.nan), torch.full((3, 5), torch.nan)
    out, lse = out.to(DEVICE), lse.to(DEVICE)
    states = (above.transpose(0, 1), above_lse.T, below.transpose(0, 1), below_lse)
    arguments = [x for state in states for x in (state, *state.stride()[:2])]
    join_states[(3, 2)](*arguments, out, lse, NUM_HEADS=5, DIM=20, BLOCK_HEADS=4, BLOCK_DIM=32)
    expected_lse = torch.logaddexp(states[1], states[3])
    weights = [torch.exp(part - expected_lse)[..., None] for part in (states[1], states[3])]
    torch.testing.assert_close(lse, expected_lse)
    torch.testing.assert_close(out, states[0] * weights[0] + states[2] * weights[1])
