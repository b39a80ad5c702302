"""Attention of one layer by Triton kernels: one launch for the tiles, one to merge."""

from __future__ import annotations

import torch
import triton

from bough.kernels.backend import KV
from bough.kernels.triton.arguments import Plane, Queries, States, TileTables
from bough.kernels.triton.attend_tiles import attend_tiles
from bough.kernels.triton.config import merge_block, tile_config
from bough.kernels.triton.merge_states import merge_states
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
        states = _new_states(q, plan)
        q = q if q.stride(-1) == 1 else q.contiguous()
        sinks_or_any = states.lse if sinks is None else sinks
        tables = plan.tables
        shape = tile_config(spec, plan.cost.device.max_tile_rows, key.element_size())
        if plan.num_launched_items:
            num_slices = triton.cdiv(plan.cost.device.max_tile_rows, shape.block_q)
            attend_tiles[(plan.num_launched_items, num_slices)](
                Queries(q, q.stride(0), q.stride(1)),
                _plane(key),
                _plane(value),
                sinks_or_any,
                TileTables(*(getattr(tables, name) for name in TileTables._fields)),
                states,
                spec.scale,
                NUM_KV_HEADS=spec.num_kv_heads,
                GROUP_SIZE=spec.group_size,
                NOPE_DIM=spec.nope_dim,
                ROPE_DIM=spec.rope_dim,
                V_DIM=spec.v_dim,
                PAGE_SIZE=plan.forest.page_size,
                WINDOW=spec.window or 0,
                SOFTCAP=spec.softcap or 0.0,
                HAS_SINKS=sinks is not None,
                SMALL_BLOCK_Q=shape.small_block_q,
                BLOCK_Q=shape.block_q,
                BLOCK_KV=shape.block_kv,
                NUM_STAGES=shape.num_stages,
                num_warps=shape.num_warps,
                maxnreg=shape.max_registers,
            )
        if plan.has_merge:
            block_partials, block_heads = merge_block(int(plan.schedule.query_num_tiles.max()))
            merge_states[(len(q), triton.cdiv(spec.num_q_heads, block_heads))](
                states,
                sinks_or_any,
                tables.merge_indptr,
                tables.merge_indices,
                tables.query_num_tiles,
                NUM_Q_HEADS=spec.num_q_heads,
                V_DIM=spec.v_dim,
                HAS_SINKS=sinks is not None,
                BLOCK_PARTIALS=block_partials,
                BLOCK_HEADS=block_heads,
                num_warps=4,
            )
        return states.out, states.lse

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
                _plane(plane),
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


def _plane(plane: torch.Tensor) -> Plane:
    return Plane(plane, plane.stride(0), plane.stride(1), plane.stride(2))


def _new_states(q: torch.Tensor, plan: Plan) -> States:
    spec, num_partials = plan.cost.spec, max(1, plan.num_partial_rows)
    partial_out = q.new_empty(num_partials, spec.num_q_heads, spec.v_dim, dtype=torch.float32)
    return States(
        out=q.new_empty(len(q), spec.num_q_heads, spec.v_dim),
        lse=q.new_empty(len(q), spec.num_q_heads, dtype=torch.float32),
        partial_out=partial_out,
        partial_lse=q.new_empty(num_partials, spec.num_q_heads, dtype=torch.float32),
    )


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
