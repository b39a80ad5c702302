"""Sizes of a model to train, and how variants of attention are given equally many parameters."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from bough.expect import expect
from bough.layers.latent import LatentShape
from bough.models.config import ModelConfig
from bough.models.decoder import Decoder
from bough.spec import AttentionSpec

# `model_type` of the checkpoint that a kind of attention is exported to.
FAMILY_OF = {"gqa": "llama", "gta": "bough_gta", "mla": "bough_gla", "gla": "bough_gla"}
# Widths of the feed-forward stay multiples of this, as bf16 products on a GPU want them.
MLP_DIM_MULTIPLE = 8


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """Sizes of a decoder with tied embeddings and one kind of attention in all layers.

    What the latent and tied kinds leave open follows from `head_dim` d as published (arXiv
    2505.21487): a rotary key of d / 2, latents of 2 d (GLA) or 4 d (MLA), and for both of these a
    query through 8 d columns.

    Args:
        vocab_size: rows of the embedding, and tokens of the tokenizer.
        hidden_dim: width of the residual stream; a multiple of `num_q_heads`.
        num_layers: decoder layers.
        attention: `gqa` (with as many stored heads as query heads MHA, with one MQA), `gta`, `mla`
            or `gla`.
        num_q_heads: query heads.
        num_kv_heads: stored heads, or latents; a divisor of `num_q_heads`, and 1 for `mla`.
        head_dim: columns of a head; even, for the rotary halves, and a multiple of 4 where only
            half of them are rotated.
        mlp_dim: width of the gated feed-forward.
        max_len: longest context in tokens.
        rope_theta: base of the rotary frequencies.
        norm_eps: added to the mean square in RMSNorm.

    Raises:
        ValueError: a size is out of range or contradicts another.
    """

    vocab_size: int
    hidden_dim: int
    num_layers: int
    attention: str = "gqa"
    num_q_heads: int
    num_kv_heads: int
    head_dim: int
    mlp_dim: int
    max_len: int
    rope_theta: float = 10000.0
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            expect(isinstance(value, str) or value > 0, name, "positive", value)
        kinds = ", ".join(FAMILY_OF)
        expect(self.attention in FAMILY_OF, "attention", f"one of {kinds}", repr(self.attention))
        is_grouped = self.num_q_heads % self.num_kv_heads == 0
        expectation = f"a multiple of num_kv_heads {self.num_kv_heads}"
        expect(is_grouped, "num_q_heads", expectation, self.num_q_heads)
        is_single = self.attention != "mla" or self.num_kv_heads == 1
        expect(is_single, "num_kv_heads", "1 for mla", self.num_kv_heads)
        expectation = f"a multiple of num_q_heads {self.num_q_heads}"
        expect(self.hidden_dim % self.num_q_heads == 0, "hidden_dim", expectation, self.hidden_dim)
        factor = 2 if self.attention == "gqa" else 4
        expectation = f"a multiple of {factor} for {self.attention}"
        expect(self.head_dim % factor == 0, "head_dim", expectation, self.head_dim)
        expect(self.vocab_size > 256, "vocab_size", "more than the 256 bytes", self.vocab_size)

    @property
    def spec(self) -> AttentionSpec:
        """What every layer stores and reads."""
        heads, stored, dim = self.num_q_heads, self.num_kv_heads, self.head_dim
        if self.attention == "gqa":
            return AttentionSpec.gqa(heads, stored, dim)
        if self.attention == "gta":
            return AttentionSpec.gta(heads, stored, dim)
        latent_dim = 4 * dim if self.attention == "mla" else 2 * dim
        return AttentionSpec.gla(heads, stored, latent_dim, dim // 2, dim)

    @property
    def model_config(self) -> ModelConfig:
        """The same for `Decoder`."""
        latent = None
        if self.attention in ("mla", "gla"):
            dim = self.head_dim
            latent = LatentShape(key_dim=dim, value_dim=dim, query_rank=8 * dim)
        return ModelConfig(
            family=FAMILY_OF[self.attention],
            vocab_size=self.vocab_size,
            hidden_size=self.hidden_dim,
            intermediate_size=self.mlp_dim,
            num_layers=self.num_layers,
            spec=self.spec,
            context_len=self.max_len,
            rope_theta=self.rope_theta,
            norm_eps=self.norm_eps,
            latent=latent,
            has_tied_embeddings=True,
        )


def count_params(shape: ModelShape) -> int:
    """Count the parameters of a shape's decoder, tied embeddings once, without making them."""
    with torch.device("meta"):
        decoder = Decoder(shape.model_config)
    return sum(weight.numel() for weight in decoder.parameters())


def match_params(shape: ModelShape, num_params: int) -> ModelShape:
    """Set `mlp_dim` so that the decoder has as nearly `num_params` parameters as it can.

    Args:
        shape: all other sizes; its `mlp_dim` does not matter.
        num_params: wanted.

    Raises:
        ValueError: the rest of the decoder alone has too many.
    """
    narrowest = replace(shape, mlp_dim=MLP_DIM_MULTIPLE)
    fewest = count_params(narrowest)
    per_multiple = count_params(replace(shape, mlp_dim=2 * MLP_DIM_MULTIPLE)) - fewest
    expect(num_params >= fewest, "num_params", f"at least {fewest}", num_params)
    num_more = round((num_params - fewest) / per_multiple)
    return replace(shape, mlp_dim=(1 + num_more) * MLP_DIM_MULTIPLE)
