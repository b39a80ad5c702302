"""Division of blocks along their KV tokens, so that workers end together."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bough.plan.assign import Assignment, assign
from bough.plan.block import Blocks
from bough.plan.cost import CostModel

# Largest tile allowed, as a multiple of the lower bound on the makespan, and how close to that
# bound a makespan must come to be taken without trying the next.
_LIMITS = (
    (1.0, 1.06),
    (1.1, 1.1),
    (0.52, 1.12),
    (1.25, 1.16),
    (0.35, 1.2),
    (0.8, 1.22),
    (0.26, 1.22),
    (0.65, 1.22),
    (1.4, 1.22),
)


class Division(NamedTuple):
    """How many tiles each block becomes, and what is expected of it.

    Attributes:
        num_tiles: [num_blocks] tiles of each block, on every head split.
        tile_tokens: [num_blocks] KV tokens of each of its tiles but the last.
        assignment: tiles to workers; item `tile * num_head_splits + split`.
        seconds: expected time of the step, merging included.
        lower_bound: seconds that no division of these blocks can beat.
    """

    num_tiles: npt.NDArray[np.int64]
    tile_tokens: npt.NDArray[np.int64]
    assignment: Assignment
    seconds: float
    lower_bound: float


def divide(blocks: Blocks, num_queries: int, cost: CostModel) -> Division:
    """Try tile limits around the lower bound on the makespan and keep the fastest.

    Args:
        blocks: what is to be divided.
        num_queries: queries of the forest.
        cost: the cost model.
    """
    rate = cost.rate(blocks.num_queries) / cost.num_head_splits
    bound = lower_bound(blocks.num_tokens, rate, cost)
    best: Division | None = None
    for limit, good_enough in _LIMITS:
        division = _divide_at(bound, limit, blocks, num_queries, rate, cost)
        if best is None or division.seconds < best.seconds:
            best = division
        if cost.device.num_workers == 1 or best.assignment.makespan <= bound * good_enough:
            break
    assert best is not None
    return best


def lower_bound(
    num_tokens: npt.NDArray[np.int64], rate: npt.NDArray[np.float64], cost: CostModel
) -> float:
    """Return the least makespan that any division and assignment of the blocks can have.

    By bisection (CoDec, arXiv 2505.17694, section 5): with T seconds a worker, block b needs
    `ceil(variable_b / (T - tile_seconds))` tiles a head split, each with its fixed cost, and
    their sum must fit into `num_workers x T`. One quantum of KV tokens cannot be divided.

    Args:
        num_tokens: [num_blocks] KV tokens of each block.
        rate: [num_blocks] seconds per KV token of one head split.
        cost: the cost model.
    """
    if not len(num_tokens):
        return 0.0
    fixed, workers = cost.device.tile_seconds, cost.device.num_workers
    variable = rate * num_tokens
    quantum = np.minimum(num_tokens, cost.device.kv_quantum)
    low = fixed + float((rate * quantum).max())
    high = max(low, float((fixed + variable).sum()) * cost.num_head_splits)
    work = float(variable.sum())

    def fits(seconds: float) -> bool:
        spare = max(seconds - fixed, 1e-12)
        num_tiles = float(np.ceil(variable / spare).sum())
        return (num_tiles * fixed + work) * cost.num_head_splits <= seconds * workers

    if fits(low):
        return low
    while high > low * 1.005:
        middle = (low * high) ** 0.5
        low, high = (low, middle) if fits(middle) else (middle, high)
    return low


def _divide_at(
    bound: float,
    limit: float,
    blocks: Blocks,
    num_queries: int,
    rate: npt.NDArray[np.float64],
    cost: CostModel,
) -> Division:
    """Cut every block into equal tiles of at most `limit` times the lower bound."""
    device, num_tokens = cost.device, blocks.num_tokens
    quantum = device.kv_quantum
    spare = max(bound * limit - device.tile_seconds, 1e-12)
    if device.num_workers == 1:
        num_tiles = np.ones_like(num_tokens)
    else:
        num_tiles = np.maximum(1, np.ceil(rate * num_tokens / spare)).astype(np.int64)
    tile_tokens = -(-num_tokens // num_tiles)
    tile_tokens = (np.maximum(1, -(-tile_tokens // quantum)) * quantum).astype(np.int64)
    num_tiles = np.maximum(1, -(-num_tokens // tile_tokens)).astype(np.int64)

    rest = num_tokens - (num_tiles - 1) * tile_tokens
    tile_cost = np.repeat(rate * tile_tokens, num_tiles)
    tile_cost[np.cumsum(num_tiles) - 1] = rate * rest
    tile_cost += device.tile_seconds
    assignment = assign(np.repeat(tile_cost, cost.num_head_splits), device.num_workers)

    tiles_of_query = np.bincount(
        blocks.query, np.repeat(num_tiles, blocks.num_queries), minlength=num_queries
    )
    num_partials = int(tiles_of_query[tiles_of_query > 1].sum())
    merging = float(cost.partials(np.asarray(num_partials))) + cost.merge * bool(num_partials)
    seconds = assignment.makespan + merging / device.num_workers
    return Division(num_tiles, tile_tokens, assignment, seconds, bound)
