"""A schedule in words."""

from __future__ import annotations

import numpy as np

from bough.forest import Forest
from bough.plan.cost import CostModel
from bough.plan.schedule import Schedule


def describe(forest: Forest, schedule: Schedule, cost: CostModel) -> str:
    """Return totals, then one line per depth of the forest.

    Args:
        forest: what the schedule was made for.
        schedule: the schedule.
        cost: the cost model that it was made with.
    """
    unique, apart = forest.num_unique_tokens, forest.num_path_tokens
    token_bytes = cost.spec.kv_bytes(1, cost.itemsize)
    read = schedule.num_tokens_read
    num_items = schedule.num_tiles * schedule.num_head_splits
    lines = [
        f"forest    {forest.num_nodes} nodes, {forest.num_requests} requests, "
        f"{forest.num_queries} queries, {unique} KV tokens ({_mib(unique * token_bytes)} a layer)",
        f"reads     {read} KV tokens; request by request {apart} "
        f"({apart / max(1, read):.1f}x as many)",
        f"tiles     {num_items} = {schedule.num_tiles} x {schedule.num_head_splits} head splits "
        f"on {cost.num_workers} workers of {cost.device.name}",
        f"merging   {schedule.num_partials} partials for "
        f"{int((schedule.query_num_tiles > 1).sum())} queries",
        f"expected  {schedule.seconds * 1e6:.1f} us, of it tiles {schedule.makespan * 1e6:.1f} us; "
        f"no division of this work takes less than {schedule.lower_bound * 1e6:.1f} us",
        "",
        f"{'depth':>5} {'nodes':>6} {'tokens':>9} {'tiles':>6} {'queries a tile':>15} "
        f"{'tokens a tile':>14}",
    ]
    tile = np.repeat(np.arange(schedule.num_tiles), np.diff(schedule.tile_segment_indptr))
    tokens = np.bincount(
        tile, schedule.segment_stop - schedule.segment_begin, minlength=schedule.num_tiles
    )
    lowest = schedule.segment_node[schedule.tile_segment_indptr[1:] - 1]
    tile_depth = forest.node_depth[lowest]
    for depth, level in enumerate(forest.levels):
        is_here = tile_depth == depth
        row = f"{depth:>5} {len(level):>6} {int(forest.node_len[level].sum()):>9} "
        row += f"{int(is_here.sum()):>6} "
        if is_here.any():
            row += f"{_span(schedule.tile_num_queries[is_here]):>15} {_span(tokens[is_here]):>14}"
        else:
            row += f"{'folded':>15} {'into children':>14}"
        lines.append(row)
    return "\n".join(lines)


def _span(values: np.ndarray) -> str:
    low, high = int(values.min()), int(values.max())
    return f"{low}" if low == high else f"{low}..{high}"


def _mib(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:.1f} MiB"
