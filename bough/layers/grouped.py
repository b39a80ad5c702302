"""Grouped attention: keys and values projected and stored apart (MHA, MQA, GQA)."""

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


class GroupedAttention(nn.Module):
    """Multi-head, multi-query or grouped-query attention with rotary positions.

    Args:
        hidden_size: columns of the hidden states.
        spec: an untied spec.
        has_qkv_bias: whether the q, k and v projections add a bias.
        has_output_bias: whether the output projection adds one.
        qk_norm_eps: epsilon of the norms of each q and k head; None for no such norms.
    """

    def __init__(
        self,
        hidden_size: int,
        spec: AttentionSpec,
        *,
        has_qkv_bias: bool = False,
        has_output_bias: bool = False,
        qk_norm_eps: float | None = None,
    ) -> None:
        super().__init__()
        self.spec = spec
        sizes = {
            "q_proj": spec.num_q_heads * spec.nope_dim,
            "k_proj": spec.num_kv_heads * spec.nope_dim,
            "v_proj": spec.num_kv_heads * spec.v_dim,
        }
        self.qkv_proj = FusedLinear(hidden_size, sizes, has_bias=has_qkv_bias)
        self.o_proj = nn.Linear(spec.num_q_heads * spec.v_dim, hidden_size, bias=has_output_bias)
        self.has_qk_norm = qk_norm_eps is not None
        if self.has_qk_norm:
            self.q_norm = nn.RMSNorm(spec.nope_dim, eps=qk_norm_eps)
            self.k_norm = nn.RMSNorm(spec.nope_dim, eps=qk_norm_eps)

    def forward(
        self, x: torch.Tensor, rotation: Rotation, context: StepContext, kv: KV
    ) -> torch.Tensor:
        """Store the KV of a step's tokens, then attend.

        Args:
            x: [num_tokens, hidden_size].
            rotation: cos and sin of the tokens' angles, from `Rotary`.
            context: the step.
            kv: this layer's planes.

        Returns:
            [num_tokens, hidden_size].
        """
        q, k, v = self._project(x, rotation)
        store_kv(kv, (k, v), context.slots)
        out, _ = attend(q, kv, context.plan)
        return self.o_proj(out.flatten(-2))

    def forward_sequences(self, x: torch.Tensor, rotation: Rotation) -> torch.Tensor:
        """Attend within whole sequences, without a cache; differentiable.

        Args:
            x: [batch_size, seq_len, hidden_size].
            rotation: cos and sin of the angles of seq_len positions, from `Rotary`.

        Returns:
            [batch_size, seq_len, hidden_size].
        """
        q, k, v = self._project(x, rotation)
        return self.o_proj(attend_sequences(q, k, v, self.spec).flatten(-2))

    def _project(
        self, x: torch.Tensor, rotation: Rotation
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Map x [..., hidden_size] to q, k and v [..., num_heads, dim], q and k rotated."""
        q, k, v = self.qkv_proj(x)
        q = q.unflatten(-1, (self.spec.num_q_heads, self.spec.nope_dim))
        k = k.unflatten(-1, (self.spec.num_kv_heads, self.spec.nope_dim))
        v = v.unflatten(-1, (self.spec.num_kv_heads, self.spec.v_dim))
        if self.has_qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        return rotate(q, *rotation), rotate(k, *rotation), v
