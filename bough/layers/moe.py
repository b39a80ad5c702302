"""The feed-forward as a mixture of experts: a router, its experts, and those that all share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

from bough.expect import expect
from bough.layers.mlp import GatedMLP


@dataclass(frozen=True, kw_only=True)
class MoEShape:
    """Sizes of a mixture of experts, and how its router chooses.

    Args:
        num_experts: routed experts.
        num_active: experts that each token is sent to.
        expert_size: columns inside one expert, a multiple of 8: grouped products read rows of
            16 bytes, and so must the hidden size be.
        num_shared: experts that every token passes through, as one feed-forward of their joint
            size; 0 for none.
        num_groups: groups of equal size that the experts are cut into, in order.
        num_active_groups: groups that a token's experts may come from.
        scoring: `softmax` over all experts (arXiv 2405.04434, section 2.2), or `sigmoid` with a
            bias that only sways the choice (arXiv 2412.19437, section 2.1.2).
        is_normed: whether the chosen experts' weights are divided by their sum.
        scaling: factor on the weights.
    """

    num_experts: int
    num_active: int
    expert_size: int
    num_shared: int
    num_groups: int
    num_active_groups: int
    scoring: Literal["softmax", "sigmoid"]
    is_normed: bool
    scaling: float

    def __post_init__(self) -> None:
        expect(self.expert_size % 8 == 0, "expert_size", "a multiple of 8", self.expert_size)
        is_cut = self.num_experts % self.num_groups == 0
        expectation = f"a divisor of num_experts {self.num_experts}"
        expect(is_cut, "num_groups", expectation, self.num_groups)
        is_few = self.num_active_groups <= self.num_groups
        expectation = f"at most num_groups {self.num_groups}"
        expect(is_few, "num_active_groups", expectation, self.num_active_groups)
        most = self.num_experts // self.num_groups * self.num_active_groups
        expectation = f"at most the {most} experts of num_active_groups"
        expect(self.num_active <= most, "num_active", expectation, self.num_active)
        # A sigmoid group is scored by its best two.
        is_scored = self.scoring == "softmax" or self.num_experts >= 2 * self.num_groups
        expectation = f"at most half of num_experts {self.num_experts} for sigmoid scores"
        expect(is_scored, "num_groups", expectation, self.num_groups)


class Router(nn.Module):
    """Chooses each token's experts and their weights, in float32.

    Args:
        hidden_size: columns of the hidden states.
        shape: how to choose.
    """

    e_score_correction_bias: torch.Tensor

    def __init__(self, hidden_size: int, shape: MoEShape) -> None:
        super().__init__()
        self.shape = shape
        self.weight = nn.Parameter(torch.empty(shape.num_experts, hidden_size))
        if shape.scoring == "sigmoid":
            # Not trained by gradients, and finer than half precision: a buffer.
            bias = torch.zeros(shape.num_experts, dtype=torch.float32)
            self.register_buffer("e_score_correction_bias", bias)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Route x [num_tokens, hidden_size].

        Returns:
            experts [num_tokens, num_active] int64 and their weights, float32.
        """
        shape, logits = self.shape, F.linear(x.float(), self.weight.float())
        if shape.scoring == "softmax":
            scores = ranks = logits.softmax(dim=-1)
        else:
            scores = logits.sigmoid()
            ranks = scores + self.e_score_correction_bias
        experts = self._within_groups(ranks).topk(shape.num_active, dim=-1).indices
        weights = scores.gather(1, experts)
        if shape.is_normed:
            weights = weights / (weights.sum(dim=-1, keepdim=True) + 1e-20)
        return experts, weights * shape.scaling

    def _within_groups(self, ranks: torch.Tensor) -> torch.Tensor:
        """Set ranks [num_tokens, num_experts] outside each token's best groups to -inf."""
        shape = self.shape
        if shape.num_active_groups == shape.num_groups:
            return ranks
        grouped = ranks.unflatten(-1, (shape.num_groups, -1))
        num_best = 2 if shape.scoring == "sigmoid" else 1
        group_ranks = grouped.topk(num_best, dim=-1).values.sum(dim=-1)
        chosen = group_ranks.topk(shape.num_active_groups, dim=-1).indices
        is_outside = torch.ones_like(group_ranks, dtype=torch.bool).scatter(1, chosen, False)
        return grouped.masked_fill(is_outside.unsqueeze(-1), -torch.inf).flatten(1)


class Experts(nn.Module):
    """Gated feed-forwards side by side; each token passes through those it is sent to.

    The parameters are left uninitialised.

    Args:
        num_experts: experts.
        hidden_size: columns of the hidden states.
        expert_size: columns inside one expert.
    """

    def __init__(self, num_experts: int, hidden_size: int, expert_size: int) -> None:
        super().__init__()
        self.gate_up_proj = nn.Parameter(torch.empty(num_experts, 2 * expert_size, hidden_size))
        self.down_proj = nn.Parameter(torch.empty(num_experts, hidden_size, expert_size))

    def forward(
        self, x: torch.Tensor, experts: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        """Sum each token's experts, weighted; the order of the sum is the router's.

        Args:
            x: [num_tokens, hidden_size].
            experts: [num_tokens, num_active] int64.
            weights: [num_tokens, num_active] float32.

        Returns:
            [num_tokens, hidden_size].
        """
        num_active = experts.shape[1]
        by_expert, order = experts.flatten().sort(stable=True)
        ids = torch.arange(len(self.down_proj), device=x.device)
        ends = torch.searchsorted(by_expert, ids, right=True).int()  # rows up to each expert's last
        rows = x[order // num_active]  # [num_tokens * num_active, hidden_size], expert by expert
        up = F.grouped_mm(rows, self.gate_up_proj.transpose(1, 2), offs=ends)
        gate, up = up.chunk(2, dim=-1)
        out = F.grouped_mm(F.silu(gate) * up, self.down_proj.transpose(1, 2), offs=ends)
        out = out[order.argsort()].unflatten(0, (-1, num_active))
        return (out * weights.unsqueeze(-1)).sum(dim=1).to(x.dtype)

    def parts(self) -> dict[str, torch.Tensor]:
        """View every expert's three matrices under the names that checkpoints give them."""
        views = {}
        for index, (gate_up, down) in enumerate(
            zip(self.gate_up_proj, self.down_proj, strict=True)
        ):
            gate, up = gate_up.chunk(2)
            for name, view in (("gate_proj", gate), ("up_proj", up), ("down_proj", down)):
                views[f"{index}.{name}.weight"] = view
        return views


class MixtureOfExperts(nn.Module):
    """Routed experts and shared ones, added (DeepSeekMoE, arXiv 2401.06066).

    Args:
        hidden_size: columns of the hidden states.
        shape: sizes and routing.
        has_bias: whether the shared experts' projections add biases.
    """

    def __init__(self, hidden_size: int, shape: MoEShape, *, has_bias: bool) -> None:
        super().__init__()
        expect(hidden_size % 8 == 0, "hidden_size", "a multiple of 8 for experts", hidden_size)
        self.gate = Router(hidden_size, shape)
        self.experts = Experts(shape.num_experts, hidden_size, shape.expert_size)
        self.shared_experts = None
        if shape.num_shared:
            size = shape.num_shared * shape.expert_size
            self.shared_experts = GatedMLP(hidden_size, size, has_bias=has_bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map x [..., hidden_size] to the same shape."""
        rows = x.flatten(0, -2)
        out = self.experts(rows, *self.gate(rows)).view_as(x)
        return out if self.shared_experts is None else out + self.shared_experts(x)
