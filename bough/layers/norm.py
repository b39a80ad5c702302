"""Norms that torch lacks. Plain ones are torch's own `nn.RMSNorm`."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class GroupedRMSNorm(nn.Module):
    """Scale each of several vectors to mean square 1 on its own, then by weights of its own.

    Args:
        num_groups: vectors of a token.
        dim: columns of each.
        eps: added to the mean square.
    """

    def __init__(self, num_groups: int, dim: int, eps: float) -> None:
        super().__init__()
        self.dim = dim
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(num_groups * dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise x [..., num_groups * dim], dim columns at a time; x and weights may differ in
        dtype, as under autocast."""
        groups = x.unflatten(-1, (-1, self.dim))
        return F.rms_norm(groups, (self.dim,), eps=self.eps).flatten(-2) * self.weight
