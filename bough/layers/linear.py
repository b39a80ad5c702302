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
        """Project x [..., in_features]; one [..., part_size] view per part."""
        return F.linear(x, self.weight, self.bias).split(list(self.part_sizes.values()), dim=-1)

    def parts(self, stacked: torch.Tensor) -> dict[str, torch.Tensor]:
        """Cut a tensor shaped like `weight` or `bias` into a view of each projection's rows."""
        views = stacked.split(list(self.part_sizes.values()))
        return dict(zip(self.part_sizes, views, strict=True))


class GroupedLinear(nn.Module):
    """A projection of each of several inputs: the weight's rows in as many blocks, one an input.

    The parameters are left uninitialised.

    Args:
        num_groups: inputs of a token.
        in_features: columns of each.
        out_features: rows of the weight, those of all groups together.
    """

    def __init__(self, num_groups: int, in_features: int, out_features: int) -> None:
        super().__init__()
        self.num_groups = num_groups
        self.weight = nn.Parameter(torch.empty(out_features, in_features))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Project x [..., num_groups, in_features] to [..., out_features], group by group."""
        if self.num_groups == 1:
            return F.linear(x.squeeze(-2), self.weight)
        weight = self.weight.unflatten(0, (self.num_groups, -1))
        rows = x.flatten(0, -3).transpose(0, 1)  # [num_groups, num_rows, in_features]
        out = torch.bmm(rows, weight.transpose(1, 2)).transpose(0, 1)
        return out.flatten(1).unflatten(0, x.shape[:-2])
