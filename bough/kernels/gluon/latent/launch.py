"""The launch of a plan's tiles over latents."""

from __future__ import annotations

from typing import Any

import torch
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from bough.kernels.gluon.latent.config import (
    BLOCK_KV,
    choose_fp8_kernel,
    choose_kernel,
    latent_shape,
)
from bough.kernels.gluon.latent.few import attend_few
from bough.kernels.gluon.latent.narrow import attend_narrow
from bough.kernels.gluon.latent.quantized import attend_quantized
from bough.kernels.gluon.latent.wide import attend_wide
from bough.kernels.triton.arguments import Plane, States
from bough.kernels.triton.launch import queries_of, stored_of, tables_of
from bough.kv import QuantizedKV
from bough.plan import Plan
from bough.spec import AttentionSpec

_KERNELS: dict[str, Any] = {
    "narrow": attend_narrow,
    "wide": attend_wide,
    "few": attend_few,
    "quantized": attend_quantized,
}


def launch_latents(
    q: torch.Tensor,
    kv: torch.Tensor | QuantizedKV,
    plan: Plan,
    states: States,
    sinks: torch.Tensor | None,
) -> None:
    """Attend every item of a plan.

    Args:
        q: [num_queries, num_q_heads, qk_dim].
        kv: [num_pages, page_size, num_kv_heads * v_dim + rope_dim], or in fp8.
        plan: the plan.
        states: where outputs and partials go.
        sinks: [num_q_heads] logits, where the spec has them.
    """
    spec, page_size = plan.cost.spec, plan.forest.page_size
    most_rows = plan.most_tile_queries * spec.group_size
    if isinstance(kv, QuantizedKV):
        kernel, is_contiguous = choose_fp8_kernel(spec, most_rows), False
    else:
        kernel, is_contiguous = choose_kernel(spec), kv.stride(0) == page_size * kv.stride(1)
    shape = latent_shape(
        spec, kernel, page_size=page_size, is_contiguous=is_contiguous, most_rows=most_rows
    )
    if isinstance(kv, QuantizedKV):
        rows: dict[str, Any] = {"stored": stored_of(kv, spec)}
        if kernel.name == "quantized":
            rows["NUM_STAGED"] = kernel.num_staged
    else:
        rows = _planes(kv, spec, has_boxes=shape.HAS_BOXES)
    _KERNELS[kernel.name][(plan.num_launched_items * shape.NUM_SLICES,)](
        queries=queries_of(q),
        sinks_ptr=states.lse if sinks is None else sinks,
        tables=tables_of(plan),
        states=states,
        scale=spec.scale,
        SHAPE=shape,
        REGISTERS=kernel.registers,
        num_warps=4,
        **rows,
    )


def _planes(rows: torch.Tensor, spec: AttentionSpec, *, has_boxes: bool) -> dict[str, Any]:
    """What kernels read of rows of 16 bits: by pointer, and as boxes."""
    one_axis = rows.flatten(0, 1) if has_boxes else rows[0]
    return {
        "plane": Plane(rows, rows.stride(0), rows.stride(1), spec.v_dim),
        "state_boxes": _boxes(one_axis, min(256, spec.v_dim)),
        "rope_boxes": _boxes(one_axis, spec.rope_dim),
    }


def _boxes(rows: torch.Tensor, columns: int) -> TensorDescriptor:
    """What the copy engine fetches at a time: a block's rows, some of their columns."""
    layout = gl.NVMMASharedLayout(
        swizzle_byte_width=min(128, 2 * columns), element_bitwidth=16, rank=2
    )
    return TensorDescriptor.from_tensor(rows, [BLOCK_KV, columns], layout)
