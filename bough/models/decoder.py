"""The one decoder of every family: tokens in, logits out. What differs is in its config."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from bough.cache.pool import KV
from bough.layers.context import StepContext
from bough.layers.grouped import GroupedAttention
from bough.layers.mlp import GatedMLP
from bough.layers.rope import Rotary
from bough.models.config import ModelConfig
from bough.spec import AttentionSpec


class Decoder(nn.Module):
    """A stack of blocks between an embedding and its logits.

    Parameters are named as in the families' checkpoints, without their `model.` prefix.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.rotary = Rotary(config.spec.nope_dim, config.rope_theta, config.rope_scaling)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.num_layers))
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

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Map hidden [num_rows, hidden_size] to [num_rows, vocab_size] float32."""
        head = self.embed_tokens if self.lm_head is None else self.lm_head
        return F.linear(hidden, head.weight).float()


class Block(nn.Module):
    """One layer: attention, then the feed-forward, each normed before and added after."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(config.hidden_size, eps=config.norm_eps)
        self.self_attn = GroupedAttention(
            config.hidden_size,
            config.spec,
            has_qkv_bias=config.has_qkv_bias,
            has_output_bias=config.has_output_bias,
            qk_norm_eps=config.norm_eps if config.has_qk_norm else None,
        )
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, eps=config.norm_eps)
        self.mlp = GatedMLP(
            config.hidden_size, config.intermediate_size, has_bias=config.has_mlp_bias
        )

    def forward(
        self,
        hidden: torch.Tensor,
        rotation: tuple[torch.Tensor, torch.Tensor],
        context: StepContext,
        kv: KV,
    ) -> torch.Tensor:
        """Map hidden [num_tokens, hidden_size] to the same shape."""
        hidden = hidden + self.self_attn(self.input_layernorm(hidden), rotation, context, kv)
        return hidden + self.mlp(self.post_attention_layernorm(hidden))
