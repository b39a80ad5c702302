"""Tied attention: one projection serves as value and as the unrotated half of the key (GTA)."""

from __future__ import annotations

import torch
from torch import nn

from bough.attend import attend, store_kv
from bough.kv import KV
from bough.layers.context import StepContext
from bough.layers.linear import FusedLinear
from bough.layers.rope import Rotation, rotate
from bough.layers.sequences import attend_sequences
from bough.spec import AttentionSpec


class TiedAttention(nn.Module):
    """Grouped-tied attention (arXiv 2505.21487, section 3.3.1).

    A group's state is its value; its key is the state's first half beside one rotary half that all
    groups share. A token's cached row is its states and that one rotated half, nothing else.

    Args:
        hidden_size: columns of the hidden states.
        spec: of `AttentionSpec.gta`.
    """

    def __init__(self, hidden_size: int, spec: AttentionSpec) -> None:
        super().__init__()
        self.spec = spec
        sizes = {
            "q_proj": spec.num_q_heads * spec.qk_dim,
            "kv_proj": spec.num_kv_heads * spec.v_dim,
            "k_rope_proj": spec.rope_dim,
        }
        self.qkv_proj = FusedLinear(hidden_size, sizes, has_bias=False)
        self.o_proj = nn.Linear(spec.num_q_heads * spec.v_dim, hidden_size, bias=False)

    def forward(
        self, x: torch.Tensor, rotation: Rotation, context: StepContext, kv: KV
    ) -> torch.Tensor:
        """Store the rows of a step's tokens, then attend; as `GroupedAttention.forward`."""
        q, state, k_rope = self._project(x, rotation)
        store_kv(kv, torch.cat((state.flatten(-2), k_rope.flatten(-2)), dim=-1), context.slots)
        out, _ = attend(q, kv, context.plan)
        return self.o_proj(out.flatten(-2))

    def forward_sequences(self, x: torch.Tensor, rotation: Rotation) -> torch.Tensor:
        """Attend within whole sequences; as `GroupedAttention.forward_sequences`."""
        q, state, k_rope = self._project(x, rotation)
        shared = k_rope.expand(*state.shape[:-1], -1)
        k = torch.cat((state[..., : self.spec.nope_dim], shared), dim=-1)
        return self.o_proj(attend_sequences(q, k, state, self.spec).flatten(-2))

    def _project(
        self, x: torch.Tensor, rotation: Rotation
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Map x [..., hidden_size] to its queries, states and shared rotary key.

        Returns:
            q [..., num_q_heads, qk_dim] with its last rope_dim columns rotated, the states
            [..., num_kv_heads, v_dim], and the rotated key [..., 1, rope_dim].
        """
        spec = self.spec
        q, state, k_rope = self.qkv_proj(x)
        q = q.unflatten(-1, (spec.num_q_heads, spec.qk_dim))
        q_nope, q_rope = q.split((spec.nope_dim, spec.rope_dim), dim=-1)
        q = torch.cat((q_nope, rotate(q_rope, *rotation)), dim=-1)
        state = state.unflatten(-1, (spec.num_kv_heads, spec.v_dim))
        return q, state, rotate(k_rope.unsqueeze(-2), *rotation)
