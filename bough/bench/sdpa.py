"""The peer that every machine has: torch's scaled_dot_product_attention, request by request."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention

from bough.bench.contestant import Step
from bough.bench.problem import Problem, contiguous_kv, path_slots
from bough.drafts import hides

# Every request needs contiguous KV of its own, prefixes included.
_MOST_KV_BYTES = {"cpu": 8 << 30, "cuda": 40 << 30}


class TorchSdpa:
    """One call a request with `enable_gqa`, on contiguous KV that is laid out beforehand."""

    name = "sdpa"

    def refusal(self, problem: Problem) -> str | None:
        """Refuse problems whose KV, copied for each request, would not fit."""
        spec, tokens = problem.spec, problem.forest.num_path_tokens
        elements = spec.num_kv_heads * (spec.qk_dim + spec.v_dim)
        needed = tokens * elements * problem.setup.itemsize
        if needed > _MOST_KV_BYTES[problem.q.device.type]:
            return f"contiguous KV would take {needed / 2**30:.0f} GiB"
        return None

    def prepare(self, problem: Problem) -> Step:
        """Copy every request's KV out of the pool."""
        forest = problem.forest
        calls = []
        for begin, end in zip(forest.query_indptr[:-1], forest.query_indptr[1:], strict=True):
            last = forest.query_position[end - 1]
            slots = path_slots(forest, int(forest.query_node[end - 1]), int(last) + 1)
            key, value = contiguous_kv(problem, slots)
            mask = None
            if end - begin > 1:
                position = torch.from_numpy(forest.query_position[begin:end])
                mask = torch.arange(len(slots)) <= position[:, None]
                if forest.query_hidden is not None:
                    back = position.numpy()[:, None] - np.arange(len(slots))
                    words = forest.query_hidden[begin:end, None]
                    mask &= ~torch.from_numpy(hides(words, back))
                mask = mask.to(problem.q.device)
            q = problem.q[begin:end].transpose(0, 1).contiguous()
            calls.append((q[None], key[None], value[None], mask))
        scale = problem.spec.scale

        def run() -> list[torch.Tensor]:
            return [
                scaled_dot_product_attention(
                    q, key, value, attn_mask=mask, scale=scale, enable_gqa=True
                )
                for q, key, value, mask in calls
            ]

        return Step(run, lambda outs: torch.cat([out[0].transpose(0, 1) for out in outs]))
