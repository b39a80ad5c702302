"""Attention over latents by Gluon kernels on Hopper; plain Triton merges partials and stores."""

from __future__ import annotations

import torch
import triton

from bough.kernels.backend import KV
from bough.kernels.gluon.latent.config import merge_block, refusal
from bough.kernels.gluon.latent.launch import launch_latents
from bough.kernels.triton.arguments import States
from bough.kernels.triton.backend import TritonBackend
from bough.kernels.triton.launch import new_states
from bough.kernels.triton.merge_states import merge_states
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
            _merge(plan, states, sinks)
        return states.out, states.lse


def _merge(plan: Plan, states: States, sinks: torch.Tensor | None) -> None:
    spec, tables = plan.cost.spec, plan.tables
    block = merge_block(plan.most_partials, spec.v_dim)
    grid = (
        len(states.out),
        triton.cdiv(spec.num_q_heads, block.heads),
        spec.v_dim // block.columns,
    )
    merge_states[grid](
        states,
        states.lse if sinks is None else sinks,
        tables.merge_indptr,
        tables.merge_indices,
        tables.query_num_tiles,
        NUM_Q_HEADS=spec.num_q_heads,
        V_DIM=spec.v_dim,
        HAS_SINKS=sinks is not None,
        BLOCK_PARTIALS=block.partials,
        BLOCK_HEADS=block.heads,
        BLOCK_V=block.columns,
        num_warps=4,
    )


def _checked(q: torch.Tensor, kv: KV, plan: Plan) -> torch.Tensor:
    spec: AttentionSpec = plan.cost.spec
    reason = refusal(spec, q.dtype, torch.cuda.get_device_capability(q.device))
    if reason is None and not plan.cost.device.is_split_by_head and spec.num_kv_heads > 1:
        reason = f"takes plans split by head, got one for {plan.cost.device.name}"
    if isinstance(kv, tuple) or kv.dtype != q.dtype:
        reason = reason or "takes q and kv of one dtype"
    elif kv.data_ptr() % 16 or any(step % 8 for step in kv.stride()[:2]):
        reason = reason or f"takes rows that start at multiples of 16 bytes, got {kv.stride()}"
    if reason is not None:
        raise NotImplementedError(f"backend gluon {reason}; what works: backend triton")
    assert isinstance(kv, torch.Tensor)
    return kv
