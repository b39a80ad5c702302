"""Whether the Hopper kernels take a call. Imports no kernel, so that it can be asked anywhere."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from bough.kernels.gluon.grouped import config as grouped
from bough.kernels.gluon.latent import config as latent
from bough.kv import KV, QuantizedKV, tensors_of
from bough.plan import Plan


def refusal(q: torch.Tensor, kv: KV, plan: Plan) -> str | None:
    """Say why the kernels do not take a call; None where they do.

    Args:
        q: query rows on a GPU, as in `bough.attend`.
        kv: stored rows.
        plan: the plan.
    """
    spec, device = plan.cost.spec, plan.cost.device
    if not device.is_split_by_head and spec.num_kv_heads > 1:
        return f"takes plans split by head, got one for {device.name}"
    if not isinstance(kv, QuantizedKV) and any(rows.dtype != q.dtype for rows in tensors_of(kv)):
        return "takes q and kv of one dtype, or kv in fp8"
    return _latent_refusal(q, kv, plan) if spec.is_latent else _grouped_refusal(q, kv, plan)


def _latent_refusal(q: torch.Tensor, kv: KV, plan: Plan) -> str | None:
    reason = latent.refusal(plan.cost.spec, q.dtype, torch.cuda.get_device_capability(q.device))
    # Scales are read word by word, whatever their strides.
    rows = (kv.planes[0], kv.rope) if isinstance(kv, QuantizedKV) else tensors_of(kv)
    return reason or _unaligned(rows)


def _grouped_refusal(q: torch.Tensor, kv: KV, plan: Plan) -> str | None:
    reason = grouped.refusal(plan.cost.spec, q.dtype, torch.cuda.get_device_capability(q.device))
    if reason is not None:
        return reason
    if plan.cost.device.paired_tiling is None:
        return f"takes plans of paired tiles, got tiles of {plan.cost.tile_heights} rows"
    few = grouped.TILE_HEIGHTS[0]
    is_taller = plan.most_tile_queries * plan.cost.spec.group_size > few
    if isinstance(kv, QuantizedKV) and is_taller and plan.tables.has_drafts:
        found = ", ".join(map(str, sorted(plan.heights)))
        return f"takes fp8 with drafts where tiles have at most {few} rows, got {found}"
    # Scales are read word by word, whatever their strides.
    planes = kv.planes if isinstance(kv, QuantizedKV) else tensors_of(kv)
    if planes[0].stride() != planes[-1].stride():
        strides = [plane.stride() for plane in planes]
        return f"takes keys and values of equal strides, got {strides}"
    rope = kv.rope if isinstance(kv, QuantizedKV) else None
    return _unaligned((q, *planes, rope))


def _unaligned(tensors: Iterable[torch.Tensor | None]) -> str | None:
    """Copies go 16 bytes at a time; an axis of one entry is never stepped over."""
    for tensor in tensors:
        if tensor is None:
            continue
        axes = zip(tensor.stride(), tensor.shape, strict=True)
        steps = [step * tensor.element_size() for step, size in list(axes)[:-1] if size > 1]
        if any(start % 16 for start in (tensor.data_ptr(), *steps)):
            return f"takes rows that start at multiples of 16 bytes, got {tensor.stride()}"
    return None
