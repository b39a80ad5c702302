"""What launches share: arguments made of tensors and plans, and the merge."""

from __future__ import annotations

import torch
import triton

from bough.kernels.triton.arguments import (
    AttentionShape,
    Plane,
    Queries,
    States,
    Stored,
    TileTables,
)
from bough.kernels.triton.config import MergeBlock
from bough.kernels.triton.merge_states import merge_states
from bough.kernels.triton.padding import padded
from bough.kv import KV, QuantizedKV
from bough.plan import Plan
from bough.spec import NUM_SCALES, AttentionSpec


def queries_of(q: torch.Tensor) -> Queries:
    """Take query rows, with their last axis made contiguous where it is not."""
    q = q if q.stride(-1) == 1 else q.contiguous()
    return Queries(q, q.stride(0), q.stride(1))


def plane_of(plane: torch.Tensor) -> Plane:
    """Take stored rows [num_pages, page_size, num_heads, dim]."""
    return Plane(plane, plane.stride(0), plane.stride(1), plane.stride(2))


def stored_of(kv: KV, spec: AttentionSpec) -> Stored:
    """Take a layer's planes by head; of a tied spec both keys and values are the states.

    Values in fp8 are words of two columns.
    """
    if isinstance(kv, QuantizedKV):
        key, value = plane_of(kv.planes[0]), plane_of(kv.planes[-1].view(torch.int16))
        words = kv.scales.view(torch.int32)  # [num_pages, page_size, num_kv_heads, 1]
        rope = key if kv.rope is None else plane_of(kv.rope[:, :, None])
        return Stored(key, value, rope, plane_of(words))
    if isinstance(kv, tuple):
        key, value = (plane_of(plane) for plane in kv)
        return Stored(key, value, key, key)
    states, rope = kv.split([spec.num_kv_heads * spec.v_dim, spec.rope_dim], dim=-1)
    key = plane_of(states.unflatten(-1, (spec.num_kv_heads, spec.v_dim)))
    return Stored(key, key, plane_of(rope[:, :, None]), key)


def tables_of(plan: Plan) -> TileTables:
    """Take a plan's tables; what is hidden from queries only where there are drafts."""
    tables = TileTables(*(getattr(plan.tables, name) for name in TileTables._fields))
    return tables if plan.tables.has_drafts else tables._replace(query_hidden=None)


def shape_of(plan: Plan, *, has_sinks: bool, is_fp8: bool = False) -> AttentionShape:
    """Collect what kernels are compiled for."""
    spec = plan.cost.spec
    return AttentionShape(
        NUM_KV_HEADS=spec.num_kv_heads,
        GROUP_SIZE=spec.group_size,
        NOPE_DIM=spec.nope_dim,
        ROPE_DIM=spec.rope_dim if spec.tied else 0,
        V_DIM=spec.v_dim,
        WINDOW=spec.window or 0,
        SOFTCAP=spec.softcap or 0.0,
        HAS_SINKS=has_sinks,
        HAS_DRAFTS=plan.tables.has_drafts,
        PAGE_SIZE=plan.forest.page_size,
        IS_FP8=is_fp8,
        VALUE_SCALE=0 if spec.tied else NUM_SCALES // 2,
    )


def new_states(q: torch.Tensor, plan: Plan) -> States:
    """Allocate outputs, and partials where there are any."""
    spec, num_partials = plan.cost.spec, max(1, plan.num_partial_rows)
    partial_out = q.new_empty(num_partials, spec.num_q_heads, spec.v_dim, dtype=torch.float32)
    return States(
        out=q.new_empty(len(q), spec.num_q_heads, spec.v_dim),
        lse=q.new_empty(len(q), spec.num_q_heads, dtype=torch.float32),
        partial_out=partial_out,
        partial_lse=q.new_empty(num_partials, spec.num_q_heads, dtype=torch.float32),
    )


def launch_merge(
    states: States,
    sinks: torch.Tensor | None,
    plan: Plan,
    block: MergeBlock,
    *,
    is_early: bool = False,
) -> None:
    """Combine the partials of every query that has some, a block a program.

    Args:
        states: outputs and partials.
        sinks: [num_q_heads] logits, where the spec has them.
        plan: the plan.
        block: what a program reads at a time.
        is_early: whether programs start before the tiles are done, and wait; the kernel before says
            when, and the GPU must know programmatic dependent launch (compute capability 9.0).
    """
    spec, tables = plan.cost.spec, plan.tables
    grid = (
        len(states.out),
        triton.cdiv(spec.num_q_heads, block.heads),
        triton.cdiv(spec.v_dim, block.columns),
    )
    # An option of Hopper's compiler, which others refuse.
    early = {"launch_pdl": True} if is_early else {}
    merge_states[grid](
        states,
        states.lse if sinks is None else sinks,
        tables.merge_indptr,
        tables.merge_indices,
        tables.query_num_tiles,
        NUM_Q_HEADS=spec.num_q_heads,
        V_DIM=spec.v_dim,
        HAS_SINKS=sinks is not None,
        BLOCK=block,
        ALL_COLUMNS=padded(spec.v_dim),
        IS_EARLY=is_early,
        num_warps=4,
        **early,
    )
