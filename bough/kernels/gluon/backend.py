"""Attention over latents by Gluon kernels on Hopper; plain Triton merges partials and stores."""

from __future__ import annotations

import torch

from bough.kernels.gluon.latent.config import merge_block, refusal
from bough.kernels.gluon.latent.launch import launch_latents
from bough.kernels.triton.backend import TritonBackend
from bough.kernels.triton.launch import launch_merge, new_states
from bough.kv import KV, QuantizedKV, tensors_of
from bough.plan import Plan


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


def _checked(q: torch.Tensor, kv: KV, plan: Plan) -> torch.Tensor | QuantizedKV:
    spec, is_fp8 = plan.cost.spec, isinstance(kv, QuantizedKV)
    capability = torch.cuda.get_device_capability(q.device)
    reason = refusal(spec, q.dtype, capability, is_fp8=is_fp8)
    if reason is None and not plan.cost.device.is_split_by_head and spec.num_kv_heads > 1:
        reason = f"takes plans split by head, got one for {plan.cost.device.name}"
    if isinstance(kv, tuple) or (isinstance(kv, torch.Tensor) and kv.dtype != q.dtype):
        reason = reason or "takes q and kv of one dtype, or kv in fp8"
    # Scales are read word by word, whatever their strides.
    for rows in (kv.planes[0], kv.rope) if isinstance(kv, QuantizedKV) else tensors_of(kv):
        if rows is not None and not _has_aligned_rows(rows):
            found = f"takes rows that start at multiples of 16 bytes, got {rows.stride()}"
            reason = reason or found
    if reason is not None:
        raise NotImplementedError(f"backend gluon {reason}; what works: backend triton")
    assert not isinstance(kv, tuple)
    return kv


def _has_aligned_rows(rows: torch.Tensor) -> bool:
    steps = (rows.data_ptr(), *(step * rows.element_size() for step in rows.stride()[:-1]))
    return not any(step % 16 for step in steps)
