"""A Llama-architecture decoder to train with, in plain PyTorch. It has no KV cache."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bough.train.config import ModelShape


class RMSNorm(nn.Module):
    """Scale a vector to mean square 1, in fp32, then by a learned weight."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x` [..., dim]."""
        x = x.float()
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.weight


class Attention(nn.Module):
    """Causal grouped-query self-attention with rotary positions."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.shape = shape
        q_dim, kv_dim = shape.num_q_heads * shape.head_dim, shape.num_kv_heads * shape.head_dim
        self.q_proj = nn.Linear(shape.hidden_dim, q_dim, bias=False)
        self.k_proj = nn.Linear(shape.hidden_dim, kv_dim, bias=False)
        self.v_proj = nn.Linear(shape.hidden_dim, kv_dim, bias=False)
        self.o_proj = nn.Linear(q_dim, shape.hidden_dim, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Attend within each window.

        Args:
            x: [batch_size, seq_len, hidden_dim].
            cos, sin: [seq_len, head_dim], fp32.

        Returns:
            [batch_size, seq_len, hidden_dim].
        """
        heads = (*x.shape[:2], -1, self.shape.head_dim)
        q = self.q_proj(x).view(heads).transpose(1, 2)  # [batch, heads, seq_len, head_dim]
        k = self.k_proj(x).view(heads).transpose(1, 2)
        v = self.v_proj(x).view(heads).transpose(1, 2)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return self.o_proj(out.transpose(1, 2).flatten(2))


class GatedMLP(nn.Module):
    """The SwiGLU feed-forward."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden_dim, shape.mlp_dim, bias=False)
        self.up_proj = nn.Linear(shape.hidden_dim, shape.mlp_dim, bias=False)
        self.down_proj = nn.Linear(shape.mlp_dim, shape.hidden_dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map `x` [..., hidden_dim] to the same shape."""
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class DecoderLayer(nn.Module):
    """Attention, then feed-forward, each on a normalised copy and added to the stream."""

    def __init__(self, shape: ModelShape, dropout: float) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(shape.hidden_dim, shape.norm_eps)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = RMSNorm(shape.hidden_dim, shape.norm_eps)
        self.mlp = GatedMLP(shape)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Map the stream `x` [batch_size, seq_len, hidden_dim] to the same shape."""
        x = x + self.dropout(self.self_attn(self.input_layernorm(x), cos, sin))
        return x + self.dropout(self.mlp(self.post_attention_layernorm(x)))


class TrainingModel(nn.Module):
    """The decoder with tied embeddings; parameters are named as in LlamaForCausalLM's `model`.

    Args:
        shape: sizes of the model.
        dropout: probability on the embeddings and on every residual branch while training.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, shape: ModelShape, dropout: float = 0.0) -> None:
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(shape.vocab_size, shape.hidden_dim)
        self.layers = nn.ModuleList(DecoderLayer(shape, dropout) for _ in range(shape.num_layers))
        self.norm = RMSNorm(shape.hidden_dim, shape.norm_eps)
        self.dropout = nn.Dropout(dropout)
        cos, sin = rotary_tables(shape)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        self._initialise()

    def forward(self, token_ids: Tensor) -> Tensor:
        """Score the next token at every position.

        Args:
            token_ids: [batch_size, seq_len] int64, seq_len at most `shape.max_len`.

        Returns:
            logits [batch_size, seq_len, vocab_size].
        """
        seq_len = token_ids.shape[1]
        cos, sin = self.cos[:seq_len], self.sin[:seq_len]
        x = self.dropout(self.embed_tokens(token_ids))
        for layer in self.layers:
            x = layer(x, cos, sin)
        return F.linear(self.norm(x), self.embed_tokens.weight)

    def loss(self, windows: Tensor) -> Tensor:
        """Return the mean cross-entropy, in nats a token, of predicting each next token.

        Args:
            windows: [batch_size, seq_len + 1] int64.
        """
        logits = self(windows[:, :-1])
        return F.cross_entropy(logits.flatten(0, 1).float(), windows[:, 1:].flatten())

    @torch.no_grad()
    def _initialise(self) -> None:
        # Branches that end in the stream start smaller, so that its variance does not grow with
        # depth (GPT-2, section 2.3).
        residual_std = 0.02 * (2 * self.shape.num_layers) ** -0.5
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                is_residual = name.endswith(("o_proj.weight", "down_proj.weight"))
                weight.normal_(std=residual_std if is_residual else 0.02)


def rotary_tables(shape: ModelShape) -> tuple[Tensor, Tensor]:
    """Return cos and sin, each [max_len, head_dim] fp32, the two halves equal (half rotation)."""
    exponents = torch.arange(0, shape.head_dim, 2, dtype=torch.float32) / shape.head_dim
    frequencies = shape.rope_theta**-exponents
    angles = torch.outer(torch.arange(shape.max_len, dtype=torch.float32), frequencies)
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate column i against column i + head_dim / 2, as Hugging Face's Llama does.

    Args:
        x: [..., seq_len, head_dim].
        cos, sin: [seq_len, head_dim], fp32.

    Returns:
        the rotated `x`, in its dtype.
    """
    first, second = x.chunk(2, dim=-1)
    return (x * cos + torch.cat((-second, first), dim=-1) * sin).to(x.dtype)
