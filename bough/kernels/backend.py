"""What every backend provides."""

from __future__ import annotations

from typing import Protocol

import torch

from bough.kv import KV
from bough.plan import Plan


class Backend(Protocol):
    """Attention of one layer over a plan, and the store of new tokens' KV."""

    def attend(
        self, q: torch.Tensor, kv: KV, plan: Plan, sinks: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run all tiles and merge; shapes are those of `bough.attend.attend`, checked there."""
        ...

    def store_kv(self, kv: KV, new: KV, slots: torch.Tensor) -> None:
        """Write new tokens; shapes are those of `bough.attend.store_kv`, checked there."""
        ...
