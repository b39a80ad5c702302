"""The feed-forward half of a decoder block."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from bough.layers.linear import FusedLinear


class GatedMLP(nn.Module):
    """`down(silu(gate(x)) * up(x))` (arXiv 2002.05202, SwiGLU).

    Args:
        hidden_size: columns of the hidden states.
        intermediate_size: columns between the two products.
        has_bias: whether all three projections add a bias.
    """

    def __init__(self, hidden_size: int, intermediate_size: int, *, has_bias: bool) -> None:
        super().__init__()
        sizes = {"gate_proj": intermediate_size, "up_proj": intermediate_size}
        self.gate_up_proj = FusedLinear(hidden_size, sizes, has_bias=has_bias)
        self.down_proj = nn.Linear(intermediate_size, hidden_size, bias=has_bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map x [..., hidden_size] to the same shape."""
        gate, up = self.gate_up_proj(x)
        return self.down_proj(F.silu(gate) * up)
