"""Attention of one layer by Triton kernels: one launch for the tiles, one to merge."""

from __future__ import annotations

import torch

from bough.kernels.triton.arguments import States
from bough.kernels.triton.attend_tiles import attend_tiles
from bough.kernels.triton.config import merge_block, tile_config
from bough.kernels.triton.launch import (
    launch_merge,
    new_states,
    queries_of,
    shape_of,
    stored_of,
    tables_of,
)
from bough.kernels.triton.launch_store import launch_quantized_rows, launch_rows
from bough.kv import KV, QuantizedKV, tensors_of
from bough.plan import Plan
from bough.spec import AttentionSpec

# Of the first GPUs that turn e4m3 numbers into others.
_FP8_CAPABILITY = (8, 9)


class TritonBackend:
    """Launches kernels on the tensors' device; safe inside CUDA graphs."""

    def attend(
        self, q: torch.Tensor, kv: KV, plan: Plan, sinks: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run all tiles, then merge where some query has partials or sees nothing."""
        spec = plan.cost.spec
        _check(q, kv, spec, plan)
        states = new_states(q, plan)
        if plan.num_launched_items:
            self._attend_tiles(q, kv, sinks, plan, states)
        if plan.has_merge:
            block = merge_block(plan.most_partials, spec.v_dim)
            launch_merge(states, sinks, plan, block)
        return states.out, states.lse

    def _attend_tiles(
        self,
        q: torch.Tensor,
        kv: KV,
        sinks: torch.Tensor | None,
        plan: Plan,
        states: States,
    ) -> None:
        """Launch one program an item, or a slice of its rows on a head."""
        spec, most_rows = plan.cost.spec, plan.cost.tile_heights[-1]
        stored = stored_of(kv, spec)
        # Queries meet fp8 as fp16, of which every e4m3 number is one.
        is_fp8 = isinstance(kv, QuantizedKV)
        rows = q.to(torch.float16) if is_fp8 and q.dtype == torch.bfloat16 else q
        itemsize = 4 if q.dtype == torch.float32 else stored.key.ptr.element_size()
        config = tile_config(spec, most_rows, itemsize, has_drafts=plan.tables.has_drafts)
        num_slices = config.num_slices(plan.most_tile_queries * spec.group_size)
        attend_tiles[(plan.num_launched_items, num_slices, plan.cost.least_heads)](
            queries_of(rows),
            stored,
            states.lse if sinks is None else sinks,
            tables_of(plan),
            states,
            spec.scale,
            SHAPE=shape_of(plan, has_sinks=sinks is not None, is_fp8=is_fp8),
            SMALL=config.small,
            BLOCK=config.block,
            MOST_HEADS=plan.cost.least_heads,
            num_warps=config.num_warps,
            maxnreg=config.max_registers,
        )

    def store_kv(self, kv: KV, new: KV, slots: torch.Tensor) -> None:
        """Copy each token's rows, one launch a plane; quantise them where KV is fp8."""
        if len(slots) == 0:
            return
        if isinstance(kv, QuantizedKV):
            _check_card(slots.device)
            launch_quantized_rows(kv, tensors_of(new), slots)
            return
        for plane, rows in zip(tensors_of(kv), tensors_of(new), strict=True):
            launch_rows(plane, rows, slots)


def _check(q: torch.Tensor, kv: KV, spec: AttentionSpec, plan: Plan) -> None:
    if isinstance(kv, QuantizedKV):
        _check_card(q.device)
    elif tensors_of(kv)[0].dtype != q.dtype:
        raise NotImplementedError(
            f"backend triton takes q and kv of one dtype, got {q.dtype} and "
            f"{tensors_of(kv)[0].dtype}; what works: float32, float16 or bfloat16 for both, "
            "or kv as a QuantizedKV"
        )
    if spec.group_size > 64:
        raise NotImplementedError(
            f"backend triton takes at most 64 query heads a stored head, got {spec.group_size}; "
            "what works: backends cpu and reference"
        )
    if not plan.cost.device.is_split_by_head and spec.num_kv_heads > 1:
        raise NotImplementedError(
            f"backend triton takes plans split by head, got one for {plan.cost.device.name}; "
            "what works: plans for a GPU"
        )


def _check_card(device: torch.device) -> None:
    """Refuse GPUs that do not know e4m3."""
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < _FP8_CAPABILITY:
        major, minor = torch.cuda.get_device_capability(device)
        raise NotImplementedError(
            f"backend triton reads fp8 KV from compute capability 8.9 on, got {major}.{minor}; "
            "what works: KV of 16 bits"
        )
