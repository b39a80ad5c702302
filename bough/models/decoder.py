"""The one decoder of every family: tokens in, logits out. What differs is in its config."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

import torch
from torch import nn
from torch.nn import functional as F

from bough.kv import KV
from bough.layers.context import StepContext
from bough.layers.grouped import GroupedAttention
from bough.layers.latent import LatentAttention
from bough.layers.mlp import GatedMLP
from bough.layers.moe import MixtureOfExperts
from bough.layers.rope import Rotary, Rotation
from bough.layers.tied import TiedAttention
from bough.models.config import ModelConfig
from bough.parallel import Ranks
from bough.spec import AttentionSpec

Attention = GroupedAttention | TiedAttention | LatentAttention


class Decoder(nn.Module):
    """A stack of blocks between an embedding and its logits.

    Parameters are named as in the families' checkpoints, without their `model.` prefix. Some are
    left uninitialised: fill all of them, by `load_weights` or by hand.

    Args:
        config: the model, or the share of it that one of several ranks holds.
        ranks: this rank among them; None for one rank.
    """

    def __init__(self, config: ModelConfig, ranks: Ranks | None = None) -> None:
        super().__init__()
        self.config = config
        self.ranks = Ranks() if ranks is None else ranks
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        rotary_dim = config.spec.rope_dim or config.spec.nope_dim
        self.rotary = Rotary(rotary_dim, config.rope_theta, config.rope_scaling)
        self.layers = nn.ModuleList(
            Block(config, index, self.ranks) for index in range(config.num_layers)
        )
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.norm_eps)
        self.lm_head = None
        if not config.has_tied_embeddings:
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)

    @property
    def spec(self) -> AttentionSpec:
        """Every layer's attention."""
        return self.config.spec

    def forward(
        self, token_ids: torch.Tensor, context: StepContext, kv: Sequence[KV]
    ) -> torch.Tensor:
        """Run one step's tokens through all layers, storing their KV.

        Args:
            token_ids: [num_tokens] int64.
            context: the step.
            kv: each layer's planes.

        Returns:
            [num_tokens, hidden_size], ready for `logits`.
        """
        hidden = self.embed_tokens(token_ids)
        rotation = self.rotary(context.positions)
        for layer, layer_kv in zip(self.layers, kv, strict=True):
            hidden = layer(hidden, rotation, context, layer_kv)
        return self.norm(hidden)

    def forward_sequences(self, token_ids: torch.Tensor, *, dropout: float = 0.0) -> torch.Tensor:
        """Run whole sequences through all layers, without a cache; differentiable, on one rank.

        Args:
            token_ids: [batch_size, seq_len] int64.
            dropout: probability on the embeddings and on every residual branch in training mode.

        Returns:
            [batch_size, seq_len, hidden_size], ready for `logits`.
        """
        hidden = F.dropout(self.embed_tokens(token_ids), dropout, self.training)
        rotation = self.rotary(torch.arange(token_ids.shape[1], device=token_ids.device))
        for layer in cast(Iterable[Block], self.layers):
            hidden = layer.forward_sequences(hidden, rotation, dropout=dropout)
        return self.norm(hidden)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Map hidden [..., hidden_size] to [..., vocab_size] float32."""
        head = self.embed_tokens if self.lm_head is None else self.lm_head
        return F.linear(hidden, head.weight).float()


class Block(nn.Module):
    """One layer: attention, then the feed-forward, each normed before and added after.

    Where ranks share the model, each computes both halves for its heads and columns, and what they
    add is summed over the ranks: twice a layer, and nowhere else in a step.
    """

    def __init__(self, config: ModelConfig, index: int, ranks: Ranks) -> None:
        super().__init__()
        self.ranks = ranks
        self.input_layernorm = nn.RMSNorm(config.hidden_size, eps=config.norm_eps)
        self.self_attn = make_attention(config)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, eps=config.norm_eps)
        self.mlp = make_feed_forward(config, index)

    def forward(
        self, hidden: torch.Tensor, rotation: Rotation, context: StepContext, kv: KV
    ) -> torch.Tensor:
        """Map hidden [num_tokens, hidden_size] to the same shape."""
        out = self.self_attn(self.input_layernorm(hidden), rotation, context, kv)
        hidden = hidden + self.ranks.all_reduce(out)
        out = self.mlp(self.post_attention_layernorm(hidden))
        return hidden + self.ranks.all_reduce(out)

    def forward_sequences(
        self, hidden: torch.Tensor, rotation: Rotation, *, dropout: float = 0.0
    ) -> torch.Tensor:
        """Map hidden [batch_size, seq_len, hidden_size] to the same shape."""
        out = self.self_attn.forward_sequences(self.input_layernorm(hidden), rotation)
        hidden = hidden + F.dropout(out, dropout, self.training)
        out = self.mlp(self.post_attention_layernorm(hidden))
        return hidden + F.dropout(out, dropout, self.training)


def make_attention(config: ModelConfig) -> Attention:
    """Build the attention of one layer: latent, tied or grouped, as the config says."""
    if config.latent is not None:
        return LatentAttention(
            config.hidden_size, config.spec, config.latent, has_bias=config.has_output_bias
        )
    if config.spec.tied:
        return TiedAttention(config.hidden_size, config.spec)
    return GroupedAttention(
        config.hidden_size,
        config.spec,
        has_qkv_bias=config.has_qkv_bias,
        has_output_bias=config.has_output_bias,
        qk_norm_eps=config.norm_eps if config.has_qk_norm else None,
    )


def make_feed_forward(config: ModelConfig, index: int) -> nn.Module:
    """Build the feed-forward of layer `index`: a mixture of experts, or one behind no router."""
    if config.moe is not None and index >= config.num_dense_layers:
        return MixtureOfExperts(config.hidden_size, config.moe, has_bias=config.has_mlp_bias)
    return GatedMLP(config.hidden_size, config.intermediate_size, has_bias=config.has_mlp_bias)
