"""The one door to attention: check the arguments, choose a backend, run it."""

from __future__ import annotations

from functools import cache
from importlib import import_module

import torch

from bough.kernels.backend import Backend
from bough.kernels.expanded import Expansion, join_prefix
from bough.kernels.gluon.refusal import refusal
from bough.kv import KV, QuantizedKV, expect_kv, row_shapes, tensors_of
from bough.plan import Plan

# Where each backend lives; imported when it is first asked for.
_HOMES = {
    "reference": ("bough.kernels.reference", "ReferenceBackend"),
    "cpu": ("bough.kernels.cpu", "CpuBackend"),
    "triton": ("bough.kernels.triton", "TritonBackend"),
    "gluon": ("bough.kernels.gluon.backend", "GluonBackend"),
}
_BY_DEVICE = {"cpu": "cpu", "cuda": "triton"}


def attend(
    q: torch.Tensor,
    kv: KV,
    plan: Plan,
    *,
    sinks: torch.Tensor | None = None,
    expansion: Expansion | None = None,
    backend: str | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attend every query of a forest to the KV on its path; each node is read once a tile.

    Args:
        q: [num_tokens, num_q_heads, nope_dim + rope_dim], requests one after the other; rotary
            already applied.
        kv: untied, `(k, v)`, each [num_pages, page_size, num_kv_heads, dim]; tied, one tensor
            [num_pages, page_size, num_kv_heads * v_dim + rope_dim]. Any strides, the last axis
            contiguous. Or a `bough.kv.QuantizedKV`, in fp8.
        plan: the schedule, made for the same spec, device and page size.
        sinks: [num_q_heads] logits of the attention sinks, where the spec has them.
        expansion: for latents, a prefix that all queries see whole, in expanded form, which the
            plan's forest leaves out (`bough.plan.expansion.forest_below`).
        backend: `cpu`, `triton`, `gluon` or `reference`; by the device of `q` when None, and on
            Hopper `gluon` for what it takes.

    Returns:
        out [num_tokens, num_q_heads, v_dim] in q's dtype, and lse [num_tokens, num_q_heads] fp32,
        the natural log-sum-exp of the scores. A query that sees nothing has out 0 and lse -inf.
        With an expansion, out is [num_tokens, num_q_heads, value_dim]: it has come back from the
        latents' columns.

    Raises:
        ValueError: a shape, dtype or device does not match the plan, or q holds NaN.
        NotImplementedError: no backend serves this device or dtype.
    """
    spec = plan.cost.spec
    _check_kv(kv, plan)
    _check_q(q, kv, plan)
    if spec.sinks != (sinks is not None):
        raise ValueError(f"sinks must be {'given' if spec.sinks else 'None'} for this spec")
    if sinks is not None and sinks.shape != (spec.num_q_heads,):
        raise ValueError(f"sinks must be [{spec.num_q_heads}], got {list(sinks.shape)}")
    if expansion is not None:
        expansion.check(q, spec)
    out, lse = _backend(_name(backend, q, kv, plan), q.device).attend(q, kv, plan, sinks)
    return (out, lse) if expansion is None else join_prefix(out, lse, expansion, spec.scale)


def store_kv(kv: KV, new: KV, slots: torch.Tensor, *, backend: str | None = None) -> None:
    """Write the KV of new tokens into their slots.

    Args:
        kv: a layer's planes, as in `attend`; rows for a `QuantizedKV` are quantised on the way.
        new: rows of new tokens, [num_tokens, ...] with the last axes of 16-bit planes.
        slots: [num_tokens] int64 `page * page_size + slot in page`, -1 for a token not to store.
        backend: `cpu`, `triton` or `reference`; by the planes' device when None.

    Raises:
        ValueError: shapes do not match, or a slot lies outside the planes.
    """
    plane, rows, shapes = tensors_of(kv)[0], tensors_of(new), row_shapes(kv)
    if isinstance(new, QuantizedKV) or len(shapes) != len(rows):
        found = "a QuantizedKV" if isinstance(new, QuantizedKV) else len(rows)
        raise ValueError(f"new must be {len(shapes)} tensors, got {found}")
    for values, shape in zip(rows, shapes, strict=True):
        if values.shape != (len(slots), *shape):
            expected = [len(slots), *shape]
            raise ValueError(f"new must be {expected}, got {list(values.shape)}")
    most = plane.shape[0] * plane.shape[1]
    if plane.device.type == "cpu" and len(slots) and not -1 <= slots.min() <= slots.max() < most:
        raise ValueError(f"slots must be from -1 to {most - 1}, got {slots.tolist()}")
    _backend(backend, plane.device).store_kv(kv, new, slots)


def _name(asked: str | None, q: torch.Tensor, kv: KV, plan: Plan) -> str | None:
    """Name the backend of a call; None where that of the device will do."""
    if asked not in (None, "gluon"):
        return asked
    if q.device.type != "cuda":
        if asked is not None:
            raise NotImplementedError(f"backend gluon takes tensors on a GPU, got {q.device}")
        return None
    reason = refusal(q, kv, plan)
    if asked is not None and reason is not None:
        raise NotImplementedError(f"backend gluon {reason}; what works: backend triton")
    return "gluon" if reason is None else None


def _backend(name: str | None, device: torch.device) -> Backend:
    if name is None:
        name = _BY_DEVICE.get(device.type, device.type)
    if name not in _HOMES:
        known = ", ".join(sorted(_HOMES))
        raise NotImplementedError(f"backend {name!r} does not exist; what works: {known}")
    return _load(name)


@cache
def _load(name: str) -> Backend:
    module, backend = _HOMES[name]
    return getattr(import_module(module), backend)()


def _check_kv(kv: KV, plan: Plan) -> None:
    expect_kv(kv, plan.cost.spec, plan.forest.page_size)
    num_pages = min(len(plane) for plane in tensors_of(kv))
    if plan.forest.max_page >= num_pages:
        raise ValueError(
            f"kv must hold page {plan.forest.max_page} of the forest, got {num_pages} pages"
        )


def _check_q(q: torch.Tensor, kv: KV, plan: Plan) -> None:
    spec, forest = plan.cost.spec, plan.forest
    expected = (forest.num_queries, spec.num_q_heads, spec.qk_dim)
    if q.shape != expected:
        raise ValueError(f"q must be {list(expected)}, got {list(q.shape)}")
    if q.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        raise NotImplementedError(
            f"q of {q.dtype} has no backend; what works: float32, float16, bfloat16"
        )
    wanted = torch.device(plan.cost.device.torch_device).type
    for name, tensor in (("q", q), *(("kv", plane) for plane in tensors_of(kv))):
        if tensor.device.type != wanted:
            raise ValueError(f"{name} must be on {wanted}, as its plan, got {tensor.device}")
    if q.device.type == "cpu" and q.isnan().any():
        token = int(q.isnan().flatten(1).any(dim=1).nonzero()[0])
        raise ValueError(f"q must be free of NaN, got NaN in token {token}")
