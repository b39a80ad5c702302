"""Attention of one layer on the CPU: batches of tiles, then one merge of all partials."""

from __future__ import annotations

from typing import NamedTuple

import torch

from bough.kernels.cpu.planes import Planes, Rows
from bough.kernels.cpu.program import Batch, Read, compile_program
from bough.kv import KV, rows_to_store
from bough.plan import Plan
from bough.spec import AttentionSpec

# Below every score, and finite: a row that sees nothing keeps weights of exp(-inf) = 0.
_LEAST = torch.finfo(torch.float32).min


class States(NamedTuple):
    """Attention states of all queries, then of all partials.

    Attributes:
        out: [num_queries + num_partials, num_q_heads, v_dim] fp32.
        lse: [num_queries + num_partials, num_q_heads] fp32, -inf where nothing was seen.
    """

    out: torch.Tensor
    lse: torch.Tensor


class CpuBackend:
    """Grouped products per tile with fp32 scores, states and log-sum-exp; KV of any float type."""

    def attend(
        self, q: torch.Tensor, kv: KV, plan: Plan, sinks: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run all tiles and merge."""
        if "cpu" not in plan.memo:
            plan.memo["cpu"] = compile_program(plan)
        spec, num_rows = plan.cost.spec, len(q) + plan.schedule.num_partials
        states = States(
            torch.zeros(num_rows, spec.num_q_heads, spec.v_dim),
            torch.full((num_rows, spec.num_q_heads), -torch.inf),
        )
        planes = Planes(kv, spec)
        for batch in plan.memo["cpu"]:
            _attend_batch(q, planes, spec, batch, states)
        out, lse = _merge_states(states, plan, len(q))
        if sinks is not None:
            with_sink = torch.logaddexp(lse, sinks.float().expand_as(lse))
            with_sink = torch.where(lse == -torch.inf, lse, with_sink)
            out = out * torch.exp(lse - with_sink).nan_to_num_(0.0)[..., None]
            lse = with_sink
        return out.to(q.dtype), lse

    def store_kv(self, kv: KV, new: KV, slots: torch.Tensor) -> None:
        """Scatter rows into pages; tokens with slot -1 are left out."""
        is_stored = slots >= 0
        slots = slots[is_stored]
        for plane, values in rows_to_store(kv, new):
            page, slot = slots // plane.shape[1], slots % plane.shape[1]
            plane[page, slot] = values[is_stored].to(plane.dtype)


def _attend_batch(
    q: torch.Tensor, planes: Planes, spec: AttentionSpec, batch: Batch, states: States
) -> None:
    """Attend over the reads of a batch, one after the other, with a running maximum."""
    num_tiles, num_queries = batch.query.shape
    heads, group = spec.num_kv_heads, spec.group_size
    rows = q[batch.query.reshape(-1)].float() * spec.scale
    rows = rows.view(num_tiles, num_queries, heads, group, spec.qk_dim)
    # [num_kv_heads, n, num_queries * group_size, qk_dim]
    rows = rows.permute(2, 0, 1, 3, 4).reshape(heads, num_tiles, -1, spec.qk_dim)
    most = rows.new_full((*rows.shape[:3], 1), _LEAST)
    out, total = None, None
    for read in batch.reads:
        tokens = planes.read(read.slots)
        score = _scores(rows, tokens, spec)
        if read.visible is not None:
            _hide(score, read, num_queries)
        peak = torch.maximum(score.amax(dim=-1, keepdim=True), most)
        weight = score.sub_(peak).exp_()
        part, share = _product(weight, tokens.value), weight.sum(dim=-1, keepdim=True)
        if out is not None and total is not None:
            decay = torch.exp(most - peak)
            part, share = part.addcmul_(out, decay), share.addcmul_(total, decay)
        out, total, most = part, share, peak
    assert out is not None and total is not None
    lse = (most + total.log())[..., 0]
    out = out.div_(total.clamp_(min=torch.finfo(total.dtype).tiny))
    shape = (heads, num_tiles, num_queries, group)
    out = out.view(*shape, -1).permute(1, 2, 0, 3, 4)
    states.out[batch.row] = out.reshape(num_tiles, num_queries, spec.num_q_heads, -1)
    lse = lse.view(shape).permute(1, 2, 0, 3)
    states.lse[batch.row] = lse.reshape(num_tiles, num_queries, spec.num_q_heads)


def _scores(rows: torch.Tensor, tokens: Rows, spec: AttentionSpec) -> torch.Tensor:
    """[num_kv_heads, n, num_queries * group_size, num_tokens], scaled and capped."""
    score = _product(rows[..., : spec.nope_dim], tokens.key.transpose(-1, -2))
    if tokens.rope is not None:
        # All heads meet the same rotary keys: one product a tile.
        heads_last = rows[..., spec.nope_dim :].transpose(0, 1).flatten(1, 2)
        shared = heads_last @ tokens.rope.transpose(-1, -2)
        score += shared.unflatten(1, (spec.num_kv_heads, -1)).transpose(0, 1)
    if spec.softcap is not None:
        score = score.div_(spec.softcap).tanh_().mul_(spec.softcap)
    return score


def _hide(score: torch.Tensor, read: Read, num_queries: int) -> None:
    assert read.visible is not None
    hidden = ~read.visible[None, :, :, None, :]
    score.unflatten(2, (num_queries, -1)).masked_fill_(hidden, -torch.inf)


def _product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Batched product over [num_kv_heads, n]; a view of either operand stays a view."""
    if left.shape[1] == 1:
        return torch.bmm(left[:, 0], right[:, 0])[:, None]
    product = torch.bmm(left.flatten(0, 1), right.flatten(0, 1))
    return product.unflatten(0, left.shape[:2])


def _merge_states(
    states: States, plan: Plan, num_queries: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Combine each query's partials by their log-sum-exp, in the order of the merge lists."""
    out, lse = states.out[:num_queries], states.lse[:num_queries]
    indptr = plan.tables.merge_indptr[: num_queries + 1].long()
    counts = indptr.diff()
    if not counts.any():
        return out, lse
    merged = counts.nonzero()[:, 0]
    counts = counts[merged]
    owner = torch.repeat_interleave(torch.arange(len(merged)), counts)
    partial = num_queries + plan.tables.merge_indices[: len(owner)].long()
    part_lse = states.lse[partial]
    most = torch.full((len(merged), part_lse.shape[1]), -torch.inf)
    most.scatter_reduce_(0, owner[:, None].expand_as(part_lse), part_lse, "amax")
    most = torch.where(most == -torch.inf, 0.0, most)
    weight = torch.exp(part_lse - most[owner])
    total = torch.zeros_like(most).index_add_(0, owner, weight)
    # [num_merged, num_q_heads, v_dim]
    combined = torch.zeros(len(merged), *states.out.shape[1:])
    combined.index_add_(0, owner, states.out[partial] * weight[..., None])
    out[merged] = combined / torch.where(total == 0, 1.0, total)[..., None]
    lse[merged] = most + total.log()
    return out, lse
