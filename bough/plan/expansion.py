"""Where a root of latents is better attended in expanded form, and the forest that is left then.

Absorbed, a pair of a query head and a token costs `2 (2 latent_dim + rope_dim)` FLOPs; expanded,
with the head's own key and value, `2 (key_dim + rope_dim + value_dim)`, less than a third of that
for MLA. But no bytes are common to the heads any more: a token takes `num_q_heads (key_dim +
rope_dim + value_dim)` numbers, 71 times MLA's row at 128 heads. With n queries over t tokens:

    tiles(n) = num_q_heads x ceil(n / 128)
    expanded(n, t) = max(bytes(t) / bandwidth, ceil(tiles(n) / workers) x C(128, t))
                     + what the union reads and writes / bandwidth + launches

where C is the arithmetic of 128 queries of one head over t tokens on one worker. The dense kernel
does not cut tokens: few heads leave workers idle. Below the root the absorbed form goes on by
itself, and its output goes through `W_uV` either way.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bough.expect import expect
from bough.forest import Forest
from bough.plan.cost import CostModel

# The absorbed form must take so many times as long: below the root it runs on alone, with less to
# fill the machine.
_LEAST_GAIN = 1.5
# Two launches more, and the gaps between them.
_LAUNCH_SECONDS = 10e-6
# Queries of a tile of the dense kernel.
_TILE_QUERIES = 128


@dataclass(frozen=True, kw_only=True)
class ExpandedForm:
    """Sizes of the expanded form, and how much of it there may be.

    Args:
        key_dim: columns of a head's key that come from its latent.
        value_dim: columns of a head's value.
        most_bytes: bytes that one layer's expanded prefix may take.
    """

    key_dim: int
    value_dim: int
    most_bytes: int

    def num_bytes(self, num_tokens: int, cost: CostModel) -> int:
        """Bytes of so many tokens in one layer."""
        columns = self.key_dim + cost.spec.rope_dim + self.value_dim
        return num_tokens * cost.spec.num_q_heads * columns * cost.itemsize

    def seconds(self, num_queries: int, num_tokens: int, cost: CostModel) -> float:
        """Seconds of attention to an expanded prefix, the union with the rest included."""
        device, spec = cost.device, cost.spec
        pairs = _TILE_QUERIES * num_tokens * device.num_workers
        flops = 2 * pairs * (self.key_dim + spec.rope_dim + self.value_dim)
        of_tile = max(flops / device.matmul_rate, pairs / device.score_rate)
        num_tiles = spec.num_q_heads * -(-num_queries // _TILE_QUERIES)
        num_rounds = -(-num_tiles // device.num_workers)
        dense = max(self.num_bytes(num_tokens, cost) / device.bandwidth, num_rounds * of_tile)
        joined = 4 * num_queries * spec.num_q_heads * self.value_dim * cost.itemsize
        return dense + joined / device.bandwidth + _LAUNCH_SECONDS


def choose_root(forest: Forest, cost: CostModel, form: ExpandedForm) -> int | None:
    """Choose a root to expand: one that all queries see whole, where that pays and fits.

    Args:
        forest: the batch.
        cost: the cost model of a latent spec.
        form: the expanded form's sizes and budget.

    Returns:
        the node, or None where every root is better left absorbed.
    """
    _, begin, end = forest.subtree
    sees_all = (forest.node_parent < 0) & (end - begin == forest.num_queries)
    sees_all &= forest.node_num_queries == 0
    for root in np.flatnonzero(sees_all).tolist():
        num_tokens = int(forest.node_len[root])
        absorbed = float(cost.tiles(np.array(forest.num_queries), np.array(num_tokens)))
        expanded = form.seconds(forest.num_queries, num_tokens, cost) * _LEAST_GAIN
        fits = form.num_bytes(num_tokens, cost) <= form.most_bytes
        if num_tokens and fits and expanded <= absorbed / cost.num_workers:
            return root
    return None


def forest_below(forest: Forest, root: int) -> Forest:
    """Leave a root out: what is below it begins at position 0.

    Raises:
        ValueError: the node is no root, or some query does not see all of it and more.
    """
    _, begin, end = forest.subtree
    expect(int(forest.node_parent[root]) < 0, "root", "a root", root)
    num_below = int((end - begin - forest.node_num_queries)[root])
    expect(num_below == forest.num_queries, "root", "above every query's node", root)
    is_below = np.zeros(forest.num_nodes + 1, dtype=np.bool_)
    for level in forest.levels:
        is_below[level] = is_below[forest.node_parent[level]] | (forest.node_parent[level] == root)
    length = forest.node_len[root]
    is_other = np.arange(forest.num_nodes) != root
    return replace(
        forest,
        node_parent=np.where(forest.node_parent == root, np.int32(-1), forest.node_parent),
        node_start=forest.node_start - length * is_below[:-1],
        node_len=forest.node_len * is_other,
        node_first_slot=forest.node_first_slot * is_other,
        node_num_pages=forest.node_num_pages * is_other,
        query_position=forest.query_position - length,
    )
