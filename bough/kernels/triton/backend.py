"""Attention of one layer by Triton kernels: one launch for the tiles, one to merge."""

from __future__ import annotations

import torch
import triton

from bough.kernels.backend import KV
from bough.kernels.triton.arguments import Plane, Queries, States
from bough.kernels.triton.attend_tiles import attend_tiles
from bough.kernels.triton.config import merge_block, tile_config
from bough.kernels.triton.launch import (
    launch_merge,
    new_states,
    plane_of,
    queries_of,
    shape_of,
    tables_of,
)
from bough.kernels.triton.store_kv import store_rows
from bough.plan import Plan
from bough.spec import AttentionSpec


class TritonBackend:
    """Launches kernels on the tensors' device; safe inside CUDA graphs."""

    def attend(
        self, q: torch.Tensor, kv: KV, plan: Plan, sinks: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run all tiles, then merge where some query has partials or sees nothing."""
        spec = plan.cost.spec
        key, value = _planes(kv, spec)
        _check(q, key, spec, plan)
        states = new_states(q, plan)
        if plan.num_launched_items:
            self._attend_tiles(queries_of(q), plane_of(key), plane_of(value), sinks, plan, states)
        if plan.has_merge:
            block = merge_block(plan.most_partials, spec.v_dim)
            launch_merge(states, sinks, plan, block)
        return states.out, states.lse

    def _attend_tiles(
        self,
        queries: Queries,
        key: Plane,
        value: Plane,
        sinks: torch.Tensor | None,
        plan: Plan,
        states: States,
    ) -> None:
        """Launch one program an item, or a slice of its rows."""
        spec, most_rows = plan.cost.spec, plan.cost.tile_heights[-1]
        config = tile_config(spec, most_rows, key.ptr.element_size())
        num_slices = config.num_slices(plan.most_tile_queries * spec.group_size)
        attend_tiles[(plan.num_launched_items, num_slices)](
            queries,
            key,
            value,
            states.lse if sinks is None else sinks,
            tables_of(plan),
            states,
            spec.scale,
            SHAPE=shape_of(plan, has_sinks=sinks is not None),
            SMALL=config.small,
            BLOCK=config.block,
            num_warps=config.num_warps,
            maxnreg=config.max_registers,
        )

    def store_kv(self, kv: KV, new: KV, slots: torch.Tensor) -> None:
        """Copy each token's rows, one launch a plane."""
        planes = kv if isinstance(kv, tuple) else (kv,)
        rows = new if isinstance(new, tuple) else (new,)
        for plane, values in zip(planes, rows, strict=True):
            if len(slots) == 0:
                continue
            plane = plane if plane.dim() == 4 else plane[:, :, None]
            values = values if values.dim() == 3 else values[:, None]
            values = values if values.stride(-1) == 1 else values.contiguous()
            num_heads, dim = plane.shape[2:]
            store_rows[(len(slots),)](
                plane_of(plane),
                values,
                values.stride(0),
                values.stride(1),
                slots,
                PAGE_SIZE=plane.shape[1],
                NUM_HEADS=num_heads,
                DIM=dim,
                BLOCK_HEADS=triton.next_power_of_2(num_heads),
                BLOCK_DIM=triton.next_power_of_2(dim),
            )


def _planes(kv: KV, spec: AttentionSpec) -> tuple[torch.Tensor, torch.Tensor]:
    """Key and value planes by head; of a tied spec both are the states."""
    if isinstance(kv, tuple):
        return kv
    states = kv[..., : spec.num_kv_heads * spec.v_dim]
    by_head = states.unflatten(-1, (spec.num_kv_heads, spec.v_dim))
    return by_head, by_head


def _check(q: torch.Tensor, key: torch.Tensor, spec: AttentionSpec, plan: Plan) -> None:
    if key.dtype != q.dtype:
        raise NotImplementedError(
            f"backend triton takes q and kv of one dtype, got {q.dtype} and {key.dtype}; "
            "what works: float32, float16 or bfloat16 for both"
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
