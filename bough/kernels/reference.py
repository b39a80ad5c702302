"""The oracle: each query gathers the tokens of its path and takes one softmax. Slow and plain."""

from __future__ import annotations

import numpy as np
import torch

from bough.drafts import hides
from bough.forest import Forest
from bough.kv import KV, plain_rows, rows_to_store, tensors_of
from bough.plan import Plan
from bough.spec import AttentionSpec


class ReferenceBackend:
    """Reads the forest, never the schedule, and computes in `dtype` throughout.

    Args:
        dtype: float64, or float32 to see what rounding alone costs.
    """

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        self.dtype = dtype

    def attend(
        self, q: torch.Tensor, kv: KV, plan: Plan, sinks: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute every query on its own. Only tokens that it sees are read."""
        spec, positions = plan.cost.spec, plan.tables.query_position
        out = torch.zeros(len(q), spec.num_q_heads, spec.v_dim, dtype=self.dtype, device=q.device)
        lse = torch.full(out.shape[:2], -torch.inf, dtype=self.dtype, device=q.device)
        for query, position in enumerate(positions[: plan.forest.num_queries].tolist()):
            slots = _visible_slots(plan.forest, query, position, spec.window)
            if len(slots) == 0:
                continue
            key, value = _rows(kv, spec, torch.from_numpy(slots).to(q.device), self.dtype)
            heads = q[query].to(self.dtype).unflatten(0, (spec.num_kv_heads, -1))
            score = torch.einsum("hgd,thd->hgt", heads, key).flatten(0, 1) * spec.scale
            if spec.softcap is not None:
                score = spec.softcap * torch.tanh(score / spec.softcap)
            if sinks is not None:
                score = torch.cat([score, sinks.to(score)[:, None]], dim=1)
            lse[query] = score.logsumexp(dim=1)
            weight = torch.softmax(score, dim=1)[:, : len(slots)]
            weight = weight.unflatten(0, (spec.num_kv_heads, -1))
            out[query] = torch.einsum("hgt,thd->hgd", weight, value).flatten(0, 1)
        return out.to(q.dtype), lse.float()

    def store_kv(self, kv: KV, new: KV, slots: torch.Tensor) -> None:
        """Write token by token."""
        for plane, values in rows_to_store(kv, new):
            for token, slot in enumerate(slots.tolist()):
                if slot >= 0:
                    plane[slot // plane.shape[1], slot % plane.shape[1]] = values[token]


def _visible_slots(forest: Forest, query: int, position: int, window: int | None) -> np.ndarray:
    """Slots of the tokens that a query sees, nearest node first."""
    slots: list[np.ndarray] = []
    node = int(forest.query_node[query])
    first = 0 if window is None else max(0, position - window + 1)
    while node >= 0:
        start, reserved = int(forest.node_start[node]), int(forest.node_num_pages[node])
        most = reserved * forest.page_size - int(forest.node_first_slot[node])
        above = int(forest.node_parent[node])
        begin, stop = max(first - start, 0), min(position + 1 - start, most)
        if slots:
            stop = min(stop, int(forest.node_len[node]))
        token = np.arange(begin, max(begin, stop))
        if forest.query_hidden is not None:
            token = token[~hides(forest.query_hidden[query], position - start - token)]
        token += forest.node_first_slot[node]
        page = forest.page_indices[forest.node_page_start[node] + token // forest.page_size]
        slots.append(page.astype(np.int64) * forest.page_size + token % forest.page_size)
        node = above
    return np.concatenate(slots) if slots else np.zeros(0, dtype=np.int64)


def _rows(
    kv: KV, spec: AttentionSpec, slots: torch.Tensor, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys [num_tokens, num_kv_heads, qk_dim] and values [num_tokens, num_kv_heads, v_dim]."""
    planes = tensors_of(kv)
    page, slot = slots // planes[0].shape[1], slots % planes[0].shape[1]
    rows = [row.to(dtype) for row in plain_rows(kv, [plane[page, slot] for plane in planes])]
    if len(rows) == 2:
        return rows[0], rows[1]
    row = rows[0]
    value = row[:, : spec.num_kv_heads * spec.v_dim].unflatten(1, (-1, spec.v_dim))
    rope = row[:, None, spec.num_kv_heads * spec.v_dim :].expand(-1, spec.num_kv_heads, -1)
    return torch.cat([value[..., : spec.nope_dim], rope], dim=-1), value
