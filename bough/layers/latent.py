"""Latent attention: keys and values are read off small latents (MLA, and GLA-c for any c)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn

from bough.attend import attend, store_kv
from bough.expect import expect
from bough.kv import KV
from bough.layers.context import StepContext
from bough.layers.linear import FusedLinear, GroupedLinear
from bough.layers.norm import GroupedRMSNorm
from bough.layers.rope import Rotation, rotate
from bough.layers.sequences import attend_sequences
from bough.spec import AttentionSpec

# The published models leave these norms at this value, whatever epsilon their other norms have.
LATENT_NORM_EPS = 1e-6


@dataclass(frozen=True, kw_only=True)
class LatentShape:
    """Sizes of the expanded form, which the spec of the absorbed one does not tell.

    Args:
        key_dim: columns of a head's key that come from its latent.
        value_dim: columns of a head's value.
        query_rank: columns between the two products of the query; None for a single product.
        is_interleaved: whether the projections lay out rotary columns pair by pair.
    """

    key_dim: int
    value_dim: int
    query_rank: int | None = None
    is_interleaved: bool = False

    def __post_init__(self) -> None:
        for name in ("key_dim", "value_dim"):
            expect(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))
        is_rank = self.query_rank is None or self.query_rank >= 1
        expect(is_rank, "query_rank", "None or at least 1", self.query_rank)


class Projected(NamedTuple):
    """What both forms start from; `...` are tokens, or sequences of them.

    Args:
        q_nope: [..., num_q_heads, key_dim].
        q_rope: [..., num_q_heads, rope_dim], rotated.
        latents: [..., num_latent_heads, latent_dim], normed.
        k_rope: [..., 1, rope_dim], rotated.
    """

    q_nope: torch.Tensor
    q_rope: torch.Tensor
    latents: torch.Tensor
    k_rope: torch.Tensor


class LatentAttention(nn.Module):
    """Multi-head latent attention (arXiv 2405.04434, section 2.1), or grouped latent attention
    (arXiv 2505.21487, section 3.3.2) where the spec has several latent heads.

    Two forms of one function. Expanded: every head's key and value are computed from its latent;
    for whole sequences. Absorbed: queries go into the latent's columns and outputs come back from
    them, so attention reads the cached latents as they are; for steps with a cache. The absorbed
    matrices are views of `kv_b_proj.weight`: they take no memory and follow every change of it.

    Parameters are named and laid out as in DeepSeek's checkpoints. A latent head's columns are
    contiguous, as are a query head's rows, in the order of the heads.

    Args:
        hidden_size: columns of the hidden states.
        spec: of `AttentionSpec.gla` or `mla`.
        shape: the expanded form's sizes.
        has_bias: whether the output projection and those from the hidden states add biases.
    """

    def __init__(
        self, hidden_size: int, spec: AttentionSpec, shape: LatentShape, *, has_bias: bool = False
    ) -> None:
        super().__init__()
        self.spec = spec
        self.shape = shape
        num_heads, rank = spec.num_q_heads, shape.query_rank
        q_size = num_heads * (shape.key_dim + spec.rope_dim)
        sizes = {"q_proj": q_size} if rank is None else {"q_a_proj": rank}
        sizes["kv_a_proj_with_mqa"] = spec.elements_per_token
        self.qkv_a_proj = FusedLinear(hidden_size, sizes, has_bias=has_bias)
        if rank is not None:
            self.q_a_layernorm = GroupedRMSNorm(1, rank, LATENT_NORM_EPS)
            self.q_b_proj = nn.Linear(rank, q_size, bias=False)
        self.kv_a_layernorm = GroupedRMSNorm(spec.num_kv_heads, spec.v_dim, LATENT_NORM_EPS)
        self.kv_b_proj = GroupedLinear(
            spec.num_kv_heads, spec.v_dim, num_heads * (shape.key_dim + shape.value_dim)
        )
        self.o_proj = nn.Linear(num_heads * shape.value_dim, hidden_size, bias=has_bias)

    def forward(
        self, x: torch.Tensor, rotation: Rotation, context: StepContext, kv: KV
    ) -> torch.Tensor:
        """Store the rows of a step's tokens, then attend; as `GroupedAttention.forward`."""
        q_nope, q_rope, latents, k_rope = self._project(x, rotation)
        store_kv(kv, torch.cat((latents.flatten(-2), k_rope.flatten(-2)), dim=-1), context.slots)
        # [num_q_heads, key_dim + value_dim, latent_dim]
        up = self.kv_b_proj.weight.unflatten(0, (self.spec.num_q_heads, -1))
        key_up, value_up = up.split((self.shape.key_dim, self.shape.value_dim), dim=1)
        absorbed = torch.bmm(q_nope.transpose(0, 1), key_up).transpose(0, 1)
        out, _ = attend(torch.cat((absorbed, q_rope), dim=-1), kv, context.plan)
        out = torch.bmm(out.transpose(0, 1), value_up.transpose(1, 2)).transpose(0, 1)
        return self.o_proj(out.flatten(-2))

    def forward_sequences(self, x: torch.Tensor, rotation: Rotation) -> torch.Tensor:
        """Attend within whole sequences; as `GroupedAttention.forward_sequences`."""
        q_nope, q_rope, latents, k_rope = self._project(x, rotation)
        up = self.kv_b_proj(latents).unflatten(-1, (self.spec.num_q_heads, -1))
        k_nope, v = up.split((self.shape.key_dim, self.shape.value_dim), dim=-1)
        k = torch.cat((k_nope, k_rope.expand(*k_nope.shape[:-1], -1)), dim=-1)
        q = torch.cat((q_nope, q_rope), dim=-1)
        return self.o_proj(attend_sequences(q, k, v, self.spec).flatten(-2))

    def _project(self, x: torch.Tensor, rotation: Rotation) -> Projected:
        """Map x [..., hidden_size] to what both forms start from."""
        spec, shape = self.spec, self.shape
        q, row = self.qkv_a_proj(x)
        if shape.query_rank is not None:
            q = self.q_b_proj(self.q_a_layernorm(q))
        q = q.unflatten(-1, (spec.num_q_heads, -1))
        q_nope, q_rope = q.split((shape.key_dim, spec.rope_dim), dim=-1)
        latents, k_rope = row.split((spec.num_kv_heads * spec.v_dim, spec.rope_dim), dim=-1)
        latents = self.kv_a_layernorm(latents).unflatten(-1, (spec.num_kv_heads, spec.v_dim))
        return Projected(
            q_nope=q_nope,
            q_rope=rotate(q_rope, *rotation, is_interleaved=shape.is_interleaved),
            latents=latents,
            k_rope=rotate(k_rope.unsqueeze(-2), *rotation, is_interleaved=shape.is_interleaved),
        )
