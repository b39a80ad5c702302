"""The launch of a plan's tiles over latents."""

from __future__ import annotations

from typing import Any

import torch
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from bough.kernels.gluon.latent.config import BLOCK_KV, choose_kernel, latent_shape
from bough.kernels.gluon.latent.narrow import attend_narrow
from bough.kernels.gluon.latent.wide import attend_wide
from bough.kernels.triton.arguments import Plane, States
from bough.kernels.triton.launch import queries_of, tables_of
from bough.plan import Plan

_KERNELS: dict[str, Any] = {"narrow": attend_narrow, "wide": attend_wide}


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
    kernel = choose_kernel(spec)
    shape = latent_shape(
        spec,
        page_size=page_size,
        is_contiguous=rows.stride(0) == page_size * rows.stride(1),
        most_rows=plan.most_tile_queries * spec.group_size,
    )
    one_axis = rows.flatten(0, 1) if shape.HAS_BOXES else rows[0]
    _KERNELS[kernel.name][(plan.num_launched_items * shape.NUM_SLICES,)](
        queries_of(q),
        Plane(rows, rows.stride(0), rows.stride(1), spec.v_dim),
        _boxes(one_axis, min(256, spec.v_dim)),
        _boxes(one_axis, spec.rope_dim),
        states.lse if sinks is None else sinks,
        tables_of(plan),
        states,
        spec.scale,
        SHAPE=shape,
        REGISTERS=kernel.registers,
        num_warps=4,
    )


def _boxes(rows: torch.Tensor, columns: int) -> TensorDescriptor:
    """What the copy engine fetches at a time: a block's rows, some of their columns."""
    layout = gl.NVMMASharedLayout(
        swizzle_byte_width=min(128, 2 * columns), element_bitwidth=16, rank=2
    )
    return TensorDescriptor.from_tensor(rows, [BLOCK_KV, columns], layout)
