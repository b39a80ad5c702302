"""What a step's layers need beside the hidden states: an argument, never a global."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from bough.plan import Plan


@dataclass(frozen=True, kw_only=True, eq=False)
class StepContext:
    """One step's schedule and the places of its tokens.

    Args:
        plan: the step's attention schedule; its queries are the step's tokens, in order.
        positions: [num_tokens] int64, position of each token in its request.
        slots: [num_tokens] int64, `page * page_size + slot` where each token's KV is stored, -1 for
            a token whose KV is stored already.
    """

    plan: Plan
    positions: torch.Tensor
    slots: torch.Tensor
