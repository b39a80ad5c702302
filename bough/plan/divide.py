"""Division of blocks along their KV tokens, so that workers end together."""

from __future__ import annotations

import heapq
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bough.plan.block import Blocks
from bough.plan.cost import CostModel
from bough.tree_order import Index

Seconds = npt.NDArray[np.float64]

# Largest tile allowed, as a multiple of the lower bound on the makespan: first alone, then all.
_LIMITS = np.array([1.0, 1.1, 0.52, 1.25, 0.35, 0.8, 0.26, 0.65, 1.4])
# How close to the bound a makespan must come to be taken without trying other limits.
_GOOD_ENOUGH = 1.06
# Of the limits that promise most, so many are dealt to workers to see what they take.
_MOST_DEALT = 3
# Where workers have more items each, the bound on the makespan tells as much as dealing them.
_FEW_ITEMS = 8


class Division(NamedTuple):
    """How many tiles each block becomes, and what is expected of it.

    Attributes:
        num_tiles: [num_blocks] tiles of each block, on every head split.
        tile_tokens: [num_blocks] KV tokens of each of its tiles but the last.
        rate: [num_blocks] seconds per KV token of a tile on one head split.
        merge_seconds: expected seconds of merging.
        lower_bound: seconds that no division of these blocks can beat.
    """

    num_tiles: Index
    tile_tokens: Index
    rate: Seconds
    merge_seconds: float
    lower_bound: float


def divide(blocks: Blocks, num_queries: int, cost: CostModel) -> Division:
    """Try tile limits around the lower bound on the makespan and keep the fastest.

    Args:
        blocks: what is to be divided.
        num_queries: queries of the forest.
        cost: the cost model.
    """
    rate = cost.rate(blocks.num_queries) / cost.num_head_splits
    num_tokens = blocks.num_tokens
    if not len(rate):
        return Division(num_tokens, num_tokens, rate, 0.0, 0.0)
    bound = lower_bound(num_tokens, rate, cost)
    if cost.device.num_workers == 1:
        num_tiles = np.ones((1, len(rate)), dtype=np.intp)
        merging = _merge_seconds(num_tiles, blocks, num_queries, cost)
        return Division(num_tiles[0], np.maximum(1, num_tokens), rate, float(merging[0]), bound)
    for limits in (_LIMITS[:1], _LIMITS):
        num_tiles, tile_tokens = _tiles(limits * bound, num_tokens, rate, cost)
        merging = _merge_seconds(num_tiles, blocks, num_queries, cost)
        seconds = _falling(num_tiles, tile_tokens, num_tokens, rate, cost)
        best, makespan = _best(seconds, merging, cost)
        if makespan <= bound * _GOOD_ENOUGH:
            break
    return Division(num_tiles[best], tile_tokens[best], rate, float(merging[best]), bound)


def lower_bound(num_tokens: Index, rate: Seconds, cost: CostModel) -> float:
    """Return the least makespan that any division and assignment of the blocks can have.

    By bisection (CoDec, arXiv 2505.17694, section 5): with T seconds a worker, block b needs
    `ceil(variable_b / (T - tile_seconds))` tiles a head split, each with its fixed cost, and
    their sum must fit into `num_workers x T`. One quantum of KV tokens cannot be divided.
    Rounding no quotient up, and each by one, bounds the answer from below and from above.

    Args:
        num_tokens: [num_blocks] KV tokens of each block, of one at least.
        rate: [num_blocks] seconds per KV token of one head split.
        cost: the cost model.
    """
    fixed, workers = cost.device.tile_seconds, cost.device.num_workers / cost.num_head_splits
    variable = rate * num_tokens
    work = float(variable.sum())

    def unrounded(num_more: int) -> float:
        """Solve (work / x + num_more) * fixed + work = (x + fixed) * workers for x + fixed."""
        half = (work + (num_more - workers) * fixed) / (2 * workers)
        return fixed + half + (half * half + work * fixed / workers) ** 0.5

    def fits(seconds: float) -> bool:
        spare = max(seconds - fixed, 1e-12)
        return float(np.ceil(variable / spare).sum()) * fixed + work <= seconds * workers

    indivisible = float((rate * np.minimum(num_tokens, cost.device.kv_quantum)).max()) + fixed
    undivided = (len(num_tokens) * fixed + work) / workers
    low = max(indivisible, undivided, unrounded(0))
    if fits(low):
        return low
    high = max(low, unrounded(len(num_tokens)))
    while high > low * 1.005:
        middle = (low * high) ** 0.5
        low, high = (low, middle) if fits(middle) else (middle, high)
    return low


def _tiles(
    seconds: Seconds, num_tokens: Index, rate: Seconds, cost: CostModel
) -> tuple[Index, Index]:
    """Cut every block into equal tiles that take at most each of some times.

    Returns:
        [num_limits, num_blocks] tiles of each block, and tokens of each of its tiles.
    """
    quantum = cost.device.kv_quantum
    spare = np.maximum(seconds - cost.device.tile_seconds, 1e-12)
    least = np.maximum(1.0, np.ceil(rate * num_tokens / spare[:, None]))
    tile_tokens = np.maximum(1.0, np.ceil(num_tokens / (least * quantum))) * quantum
    num_tiles = np.maximum(1.0, np.ceil(num_tokens / tile_tokens))
    return num_tiles.astype(np.intp), tile_tokens.astype(np.intp)


def _falling(
    num_tiles: Index, tile_tokens: Index, num_tokens: Index, rate: Seconds, cost: CostModel
) -> list[tuple[Seconds, Index]]:
    """List what the items of each limit take, by falling cost, with how many take that."""
    rest = num_tokens - (num_tiles - 1) * tile_tokens
    seconds = np.concatenate((rest * rate, tile_tokens * rate), axis=1) + cost.device.tile_seconds
    counts = np.concatenate((np.ones_like(num_tiles), num_tiles - 1), axis=1)
    counts *= cost.num_head_splits
    orders = seconds.argsort(axis=1)[:, ::-1]
    return [(seconds[at, order], counts[at, order]) for at, order in enumerate(orders)]


def _best(
    falling: list[tuple[Seconds, Index]], merging: Seconds, cost: CostModel
) -> tuple[int, float]:
    """Choose the limit of the least seconds; return it and its makespan."""
    workers = cost.device.num_workers
    least = np.array([_least_makespan(*items, workers) for items in falling])
    best, best_makespan = -1, np.inf
    for at in (least + merging).argsort(kind="stable")[:_MOST_DEALT].tolist():
        if best >= 0 and least[at] + merging[at] >= best_makespan + merging[best]:
            break
        seconds, counts = falling[at]
        makespan = float(least[at])
        if counts.sum() <= _FEW_ITEMS * workers:
            makespan = _dealt(seconds.repeat(counts), workers)
        if best < 0 or makespan + merging[at] < best_makespan + merging[best]:
            best, best_makespan = at, makespan
    return best, best_makespan


def _least_makespan(seconds: Seconds, counts: Index, num_workers: int) -> float:
    """Return what dealing items by falling cost cannot beat.

    Some worker has k + 1 of the first `k x num_workers + 1` items, each of the last one's cost at
    least; and all work together takes its share of every worker.
    """
    ends = counts.cumsum()
    heads = np.arange(0, ends[-1], num_workers)
    nth = seconds[ends.searchsorted(heads, side="right")]
    stacked = float((nth * np.arange(1, len(heads) + 1)).max())
    return max(stacked, float((seconds * counts).sum()) / num_workers)


def _dealt(seconds: Seconds, num_workers: int) -> float:
    """Return when all are done if each item goes to the worker that is free first."""
    free = seconds[:num_workers][::-1].tolist()
    for taken in seconds[num_workers:].tolist():
        heapq.heapreplace(free, free[0] + taken)
    return max(free)


def _merge_seconds(num_tiles: Index, blocks: Blocks, num_queries: int, cost: CostModel) -> Seconds:
    """[num_limits] seconds of merging: the queries of several tiles have a partial in each."""
    has_more = np.bincount(blocks.query, minlength=num_queries)[blocks.query] > 1
    always = np.add.reduceat(has_more, blocks.query_begin, dtype=np.intp)
    divided = np.where(num_tiles > 1, blocks.num_queries, always)
    num_partials = (num_tiles * divided).sum(axis=1)
    return (cost.partials(num_partials) + cost.merge * (num_partials > 0)) / cost.device.num_workers
