"""The launch of a plan's tiles over grouped heads in fp8."""

from __future__ import annotations

import torch

from bough.kernels.gluon.quantized.attend import attend_quantized_heads
from bough.kernels.gluon.quantized.config import block_shape
from bough.kernels.triton.arguments import States
from bough.kernels.triton.launch import plane_of, queries_of, shape_of, stored_of, tables_of
from bough.kv import QuantizedKV
from bough.plan import Plan


def launch_quantized_heads(
    q: torch.Tensor,
    kv: QuantizedKV,
    plan: Plan,
    states: States,
    sinks: torch.Tensor | None,
) -> None:
    """Attend every item of a plan of tiles of few rows, with one program a multiprocessor.

    Args:
        q: [num_queries, num_q_heads, qk_dim].
        kv: keys and values, or tied states with their rotary key.
        plan: the plan.
        states: where outputs and partials go.
        sinks: [num_q_heads] logits, where the spec has them.
    """
    spec = plan.cost.spec
    stored = stored_of(kv, spec)
    block = block_shape(spec)
    attend_quantized_heads[(min(plan.num_launched_items, plan.cost.device.num_workers),)](
        queries_of(q),
        stored._replace(
            key=stored.rope if spec.tied else stored.key, value=plane_of(kv.planes[-1])
        ),
        states.lse if sinks is None else sinks,
        tables_of(plan),
        states,
        spec.scale,
        SHAPE=shape_of(plan, has_sinks=sinks is not None, is_fp8=True),
        BLOCK=block,
        num_warps=4,
        maxnreg=block.ENTRY_REGISTERS,
    )
