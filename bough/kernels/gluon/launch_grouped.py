"""The launch of a plan's tiles over grouped heads, in 16 bits or in fp8."""

from __future__ import annotations

from typing import Any

import torch

from bough.kernels.gluon.grouped.attend import attend_grouped
from bough.kernels.gluon.grouped.config import BlockShape, block_shape
from bough.kernels.gluon.quantized.attend import attend_quantized_heads
from bough.kernels.gluon.quantized.config import block_shape as quantized_block_shape
from bough.kernels.triton.arguments import Plane, States, Stored
from bough.kernels.triton.launch import plane_of, queries_of, shape_of, stored_of, tables_of
from bough.kv import KV, QuantizedKV
from bough.plan import Plan


def launch_grouped(
    q: torch.Tensor,
    kv: KV,
    plan: Plan,
    states: States,
    sinks: torch.Tensor | None,
) -> None:
    """Attend every item of a plan, with one program a multiprocessor.

    Args:
        q: [num_queries, num_q_heads, qk_dim].
        kv: keys and values, each [num_pages, page_size, num_kv_heads, dim]; or tied states with
            their rotary key, [num_pages, page_size, num_kv_heads * v_dim + rope_dim]; or either in
            fp8.
        plan: the plan.
        states: where outputs and partials go.
        sinks: [num_q_heads] logits, where the spec has them.
    """
    spec = plan.cost.spec
    stored = stored_of(kv, spec)
    key = stored.rope if spec.tied else stored.key
    kernel: Any
    rows: tuple[Plane, Plane] | tuple[Stored]
    is_fp8 = isinstance(kv, QuantizedKV)
    block = _block_of(plan, is_fp8)
    if isinstance(kv, QuantizedKV):
        kernel = attend_quantized_heads
        rows = (stored._replace(key=key, value=plane_of(kv.planes[-1])),)
    else:
        kernel = attend_grouped
        rows = (key, stored.value)
    kernel[(min(plan.num_launched_items, plan.cost.device.num_workers),)](
        queries_of(q),
        *rows,
        states.lse if sinks is None else sinks,
        tables_of(plan),
        states,
        spec.scale,
        SHAPE=shape_of(plan, has_sinks=sinks is not None, is_fp8=is_fp8),
        BLOCK=block,
        num_warps=4,
        maxnreg=block.ENTRY_REGISTERS,
    )


def _block_of(plan: Plan, is_fp8: bool) -> BlockShape:
    """Choose the compile-time shape once for all layers that a state of the plan serves."""
    name = "grouped fp8" if is_fp8 else "grouped"
    if name not in plan.memo:
        spec, heights = plan.cost.spec, plan.heights
        plan.memo[name] = (
            quantized_block_shape(spec, heights)
            if is_fp8
            else block_shape(spec, heights, plan.tall_tokens)
        )
    block: BlockShape = plan.memo[name]
    return block
