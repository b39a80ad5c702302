"""The launch of a plan's tiles over latents."""

from __future__ import annotations

from typing import Any

import torch
import triton
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from bough.kernels.gluon.latent.config import BLOCK_KV, choose_shape
from bough.kernels.gluon.latent.halves import attend_halves
from bough.kernels.gluon.latent.narrow import attend_narrow
from bough.kernels.gluon.latent.wide import attend_wide
from bough.kernels.triton.arguments import Plane, States
from bough.kernels.triton.launch import queries_of, tables_of
from bough.plan import Plan

_KERNELS: dict[str, Any] = {
    "narrow": attend_narrow,
    "wide": attend_wide,
    "halves": attend_halves,
}


def launch_latents(
    q: torch.Tensor, rows: torch.Tensor, plan: Plan, states: States, sinks: torch.Tensor | None
) -> None:
    """Attend every item of a plan.

    Args:
        q: [num_queries, num_q_heads, qk_dim].
        rows: [num_pages, page_size, num_kv_heads * v_dim + rope_dim].
        plan: the plan.
        states: where outputs and partials go.
        sinks: [num_q_heads] logits, where the spec has them.
    """
    spec, page_size = plan.cost.spec, plan.forest.page_size
    page_rows = page_size * rows.stride(1)
    has_boxes = page_size % BLOCK_KV == 0 and rows.stride(0) == page_rows
    shape = choose_shape(spec, has_boxes)
    most_rows = plan.most_tile_queries * spec.group_size
    num_slices = triton.cdiv(most_rows, shape.block_rows)
    arguments = {
        "queries": queries_of(q),
        "sinks_ptr": states.lse if sinks is None else sinks,
        "tables": tables_of(plan),
        "states": states,
        "scale": spec.scale,
        "NUM_KV_HEADS": spec.num_kv_heads,
        "GROUP_SIZE": spec.group_size,
        "V_DIM": spec.v_dim,
        "ROPE_DIM": spec.rope_dim,
        "PAGE_SIZE": page_size,
        "HAS_SINKS": sinks is not None,
        "NUM_SLICES": num_slices,
        "NUM_STAGES": shape.num_stages,
    }
    if shape.kernel != "wide":
        arguments["plane"] = Plane(rows, rows.stride(0), rows.stride(1), spec.v_dim)
    if shape.kernel != "halves":
        one_axis = rows.flatten(0, 1) if has_boxes else rows[0]
        arguments["state_boxes"] = _boxes(one_axis, min(256, spec.v_dim))
        arguments["rope_boxes"] = _boxes(one_axis, spec.rope_dim)
    if shape.kernel == "narrow":
        arguments["HAS_BOXES"] = has_boxes
    grid = (plan.num_launched_items * num_slices,)
    _KERNELS[shape.kernel][grid](**arguments, **shape.registers, num_warps=4)


def _boxes(rows: torch.Tensor, columns: int) -> TensorDescriptor:
    """What the copy engine fetches at a time: a block's rows, some of their columns."""
    layout = gl.NVMMASharedLayout(
        swizzle_byte_width=min(128, 2 * columns), element_bitwidth=16, rank=2
    )
    return TensorDescriptor.from_tensor(rows, [BLOCK_KV, columns], layout)
