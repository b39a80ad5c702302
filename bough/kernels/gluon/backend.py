"""Attention over latents by Gluon kernels on Hopper; plain Triton merges partials and stores."""

from __future__ import annotations

import torch

from bough.kernels.gluon.latent.config import merge_block, refusal
from bough.kernels.gluon.latent.launch import launch_latents
from bough.kernels.triton.backend import TritonBackend
from bough.kernels.triton.launch import launch_merge, new_states
from bough.kv import KV
from bough.plan import Plan
from bough.spec import AttentionSpec


class GluonBackend(TritonBackend):
    """Launches kernels on the tensors' device; safe inside CUDA graphs."""

    def attend(
        self, q: torch.Tensor, kv: KV, plan: Plan, sinks: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run all tiles, then merge where some query has partials or sees nothing."""
        rows = _checked(q, kv, plan)
        states = new_states(q, plan)
        if plan.num_launched_items:
            launch_latents(q, rows, plan, states, sinks)
        if plan.has_merge:
            block = merge_block(plan.most_partials, len(q), plan.cost.spec.v_dim)
            launch_merge(states, sinks, plan, block)
        return states.out, states.lse


def _checked(q: torch.Tensor, kv: KV, plan: Plan) -> torch.Tensor:
    spec: AttentionSpec = plan.cost.spec
    reason = refusal(spec, q.dtype, torch.cuda.get_device_capability(q.device))
    if reason is None and not plan.cost.device.is_split_by_head and spec.num_kv_heads > 1:
        reason = f"takes plans split by head, got one for {plan.cost.device.name}"
    if not isinstance(kv, torch.Tensor) or kv.dtype != q.dtype:
        reason = reason or "takes q and kv of one dtype"
    elif kv.data_ptr() % 16 or any(step % 8 for step in kv.stride()[:2]):
        reason = reason or f"takes rows that start at multiples of 16 bytes, got {kv.stride()}"
    if reason is not None:
        raise NotImplementedError(f"backend gluon {reason}; what works: backend triton")
    assert isinstance(kv, torch.Tensor)
    return kv
