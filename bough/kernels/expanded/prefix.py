"""Attention to an expanded prefix, and its union with what the absorbed form found below it."""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton

from bough.kernels.expanded.expansion import Expansion
from bough.kernels.triton.join_states import join_states

# Heads that a program of the union takes at a time.
_BLOCK_HEADS = 8


class State(NamedTuple):
    """Attention of some tokens, in any strides with the last axis of `out` contiguous.

    Attributes:
        out: [num_queries, num_q_heads, value_dim].
        lse: [num_queries, num_q_heads] fp32.
    """

    out: torch.Tensor
    lse: torch.Tensor


def join_prefix(
    out: torch.Tensor, lse: torch.Tensor, expansion: Expansion, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Add an expanded prefix, which all queries see whole, to the absorbed form's result below it.

    Args:
        out: [num_queries, num_q_heads, latent_dim] of the tokens below.
        lse: [num_queries, num_q_heads] of the same, -inf where there are none.
        expansion: the prefix.
        scale: of the scores.

    Returns:
        out [num_queries, num_q_heads, value_dim] and lse [num_queries, num_q_heads] of both.

    Raises:
        RuntimeError: cuDNN has no attention for these sizes on this GPU.
    """
    above = _attend_all(expansion, scale)
    below = State(torch.bmm(out.transpose(0, 1), expansion.value_up).transpose(0, 1), lse)
    return _join_on_gpu(above, below) if out.device.type == "cuda" else _join(above, below)


def _attend_all(expansion: Expansion, scale: float) -> State:
    """Dense attention without a mask: cuDNN's on a GPU, as torch has it."""
    # [num_q_heads, num_queries or num_tokens, dim]
    q, key, value = (x.transpose(0, 1) for x in (expansion.q, expansion.key, expansion.value))
    if q.device.type == "cuda":
        out, lse, *_ = torch.ops.aten._scaled_dot_product_cudnn_attention(
            q[None], key[None], value[None], None, True, 0.0, False, False, scale=scale
        )
        return State(out[0].transpose(0, 1), lse.view(q.shape[:2]).T)
    score = (q.float() @ key.float().transpose(1, 2)).mul_(scale)
    out = (score.softmax(dim=2) @ value.float()).to(q.dtype)
    return State(out.transpose(0, 1), score.logsumexp(dim=2).T)


def _join(above: State, below: State) -> tuple[torch.Tensor, torch.Tensor]:
    lse = torch.logaddexp(above.lse, below.lse)
    parts = (state.out.float() * torch.exp(state.lse - lse)[..., None] for state in (above, below))
    return sum(parts).to(above.out.dtype), lse  # type: ignore[union-attr]


def _join_on_gpu(above: State, below: State) -> tuple[torch.Tensor, torch.Tensor]:
    num_queries, num_heads, dim = above.out.shape
    out = above.out.new_empty(above.out.shape)
    lse = above.lse.new_empty(above.lse.shape)
    join_states[(num_queries, triton.cdiv(num_heads, _BLOCK_HEADS))](
        *(x for state in (above, below) for part in state for x in (part, *part.stride()[:2])),
        out,
        lse,
        NUM_HEADS=num_heads,
        DIM=dim,
        BLOCK_HEADS=_BLOCK_HEADS,
        BLOCK_DIM=triton.next_power_of_2(dim),
    )
    return out, lse
