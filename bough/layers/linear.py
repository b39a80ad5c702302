"""Projections that run as one product. Single ones are torch's own `nn.Linear`."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional as F


class FusedLinear(nn.Module):
    """Several projections of one input as one product: their rows stacked in one matrix.

    The parameters are left uninitialised.

    Args:
        in_features: columns of the input.
        part_sizes: output columns of each projection by its name, in the order of the outputs.
        has_bias: whether every projection adds a bias.
    """

    def __init__(self, in_features: int, part_sizes: Mapping[str, int], *, has_bias: bool) -> None:
        super().__init__()
        self.part_sizes = dict(part_sizes)
        out_features = sum(part_sizes.values())
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.bias = nn.Parameter(torch.empty(out_features)) if has_bias else None

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Project x [num_tokens, in_features]; one [num_tokens, part_size] view per part."""
        return F.linear(x, self.weight, self.bias).split(list(self.part_sizes.values()), dim=-1)

    def parts(self, stacked: torch.Tensor) -> dict[str, torch.Tensor]:
        """Cut a tensor shaped like `weight` or `bias` into a view of each projection's rows."""
        views = stacked.split(list(self.part_sizes.values()))
        return dict(zip(self.part_sizes, views, strict=True))
