"""Random draft trees for tests, and attention by a dense mask of ancestors as their oracle."""

from __future__ import annotations

import numpy as np
import torch

from bough.forest import Forest
from bough.kernels.backend import KV
from bough.spec import AttentionSpec

Parents = list[list[int]]


def random_parents(counts: list[int], seed: int = 0) -> Parents:
    """A tree for each request: chains, stars and all between."""
    rng = np.random.default_rng(seed)
    return [
        [int(rng.integers(max(-1, draft - reach), draft)) for draft in range(count)]
        for count, reach in zip(counts, rng.integers(1, 70, len(counts)), strict=True)
    ]


def draft_table(
    parents: Parents, page_size: int, shared: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """A page table of requests that share a prefix, and their lengths with all drafts."""
    rng = np.random.default_rng(seed)
    num_shared = shared // page_size
    own = [int(rng.integers(1, 50)) + 1 + len(tree) for tree in parents]
    lens = np.array([num_shared * page_size + count for count in own])
    columns = -(-lens // page_size)
    ids = rng.permutation(num_shared + int((columns - num_shared).sum()))
    table = np.full((len(parents), int(columns.max())), -7)
    end = num_shared
    for row, count in zip(table, columns.tolist(), strict=True):
        row[:num_shared] = ids[:num_shared]
        row[num_shared:count] = ids[end : end + count - num_shared]
        end += count - num_shared
    return table, lens


def draft_forest(parents: Parents, page_size: int, shared: int, seed: int = 0) -> Forest:
    """Requests whose queries are their newest token and a tree of drafts behind it."""
    table, lens = draft_table(parents, page_size, shared, seed)
    query_lens = [1 + len(tree) for tree in parents]
    return Forest.from_page_table(table, lens, page_size, query_lens).with_drafts(parents)


def ancestor_mask(parents: list[int], num_tokens: int) -> torch.Tensor:
    """[1 + num_drafts, num_tokens] whom the newest token and each draft sees."""
    first = num_tokens - len(parents)
    mask = torch.zeros(1 + len(parents), num_tokens, dtype=torch.bool)
    mask[:, :first] = True
    for draft, above in enumerate(parents):
        if above >= 0:
            mask[1 + draft] |= mask[1 + above]
        mask[1 + draft, first + draft] = True
    return mask


def masked_attention(
    q: torch.Tensor,
    kv: KV,
    spec: AttentionSpec,
    table: tuple[np.ndarray, np.ndarray],
    parents: Parents,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention request by request with dense masks, in fp32."""
    planes = kv if isinstance(kv, tuple) else (kv,)
    page_size, outs, lses, end = planes[0].shape[1], [], [], 0
    for row, length, tree in zip(table[0], table[1].tolist(), parents, strict=True):
        at = np.arange(length)
        slots = torch.from_numpy(row[at // page_size] * page_size + at % page_size)
        rows = [plane.flatten(0, 1)[slots.to(plane.device)].float() for plane in planes]
        if spec.tied:
            states, rope = rows[0].split([spec.num_kv_heads * spec.v_dim, spec.rope_dim], dim=1)
            value = states.unflatten(1, (spec.num_kv_heads, spec.v_dim))
            rope = rope[:, None].expand(-1, spec.num_kv_heads, -1)
            key = torch.cat([value[..., : spec.nope_dim], rope], dim=2)
        else:
            key, value = rows
        key, value = (half.repeat_interleave(spec.group_size, dim=1) for half in (key, value))
        mine = q[end : end + 1 + len(tree)].float()
        end += len(mine)
        score = torch.einsum("qhd,thd->hqt", mine, key) * spec.scale
        score = score.masked_fill(~ancestor_mask(tree, length).to(q.device), -torch.inf)
        outs.append(torch.einsum("hqt,thd->qhd", score.softmax(dim=2), value))
        lses.append(score.logsumexp(dim=2).T)
    return torch.cat(outs), torch.cat(lses)
