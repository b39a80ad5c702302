"""Division of blocks along their KV tokens, so that workers end together."""

from __future__ import annotations

import heapq
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bough.plan.assign import reading_end
from bough.plan.block import Blocks
from bough.plan.cost import CostModel
from bough.plan.items import falling
from bough.plan.work import Work, measure_work
from bough.tree_order import Index

Seconds = npt.NDArray[np.float64]

# Largest tile allowed, as a multiple of the lower bound on the makespan: first alone, then all.
# The first leaves blocks whole that cutting would not shorten by as much as their partials cost.
_LIMITS = np.array([1.05, 1.0, 1.1, 0.54, 1.25, 0.35, 0.8, 0.26, 0.65, 1.4])
# How close to the bound a makespan must come to be taken without trying other limits: where
# workers have few items each, and where they have many.
_GOOD_ENOUGH = 1.06
_GOOD_ENOUGH_OF_MANY = 1.12
# Of the limits that promise most, so many are dealt to workers to see what they take.
_MOST_DEALT = 3
# Where workers have more items each, the bound on the makespan tells as much as dealing them.
FEW_ITEMS = 8
# Items of which more end in time are even enough whatever else there is.
_MOST_STACKED = 16


class Division(NamedTuple):
    """How many tiles each block becomes, and what is expected of it.

    Attributes:
        num_tiles: [num_blocks] tiles of each block.
        tile_tokens: [num_blocks] KV tokens of each of its tiles but the last.
        work: what the blocks cost.
        lower_bound: seconds that no division of these blocks can beat.
    """

    num_tiles: Index
    tile_tokens: Index
    work: Work
    lower_bound: float


class _Items(NamedTuple):
    """The items of a division by falling cost.

    Attributes:
        seconds: [n] what items take.
        reading: [n] seconds that they read memory at an even share of its bandwidth; None where no
            item reads faster.
        num: [n] how many take that.
    """

    seconds: Seconds
    reading: Seconds | None
    num: Index


def divide(blocks: Blocks, num_queries: int, cost: CostModel) -> Division:
    """Try tile limits around the lower bound on the makespan and keep the fastest.

    Args:
        blocks: what is to be divided.
        num_queries: queries of the forest.
        cost: the cost model.
    """
    work = measure_work(blocks, cost)
    num_tokens = work.num_tokens
    if not len(num_tokens):
        return Division(num_tokens, num_tokens, work, 0.0)
    bound = lower_bound(work, cost)
    if cost.num_workers == 1:
        return Division(np.ones_like(num_tokens), np.maximum(1, num_tokens), work, bound)
    num_tiles, tile_tokens = _tiles(_LIMITS[:1] * bound, work, cost)
    if _is_good_enough(num_tiles, tile_tokens, work, bound, cost):
        return Division(num_tiles[0], tile_tokens[0], work, bound)
    num_tiles, tile_tokens = _tiles(_LIMITS * bound, work, cost)
    merging = _merge_seconds(num_tiles, blocks, num_queries, cost)
    best = _best(_falling(num_tiles, tile_tokens, work, cost), tile_tokens, merging, cost)
    return Division(num_tiles[best], tile_tokens[best], work, bound)


def lower_bound(work: Work, cost: CostModel) -> float:
    """Return the least makespan that any division and assignment of the blocks can have.

    By bisection (CoDec, arXiv 2505.17694, section 5): with T seconds a worker, block b needs
    `ceil(variable_b / (T - tile_seconds))` tiles, each of its items with a fixed cost, and
    their sum must fit into `num_workers x T`. One quantum of KV tokens cannot be divided.
    Rounding no quotient up, and each by one, bounds the answer from below and from above. The sum
    is never below what reading all memory takes (`TokenCost.reading_factor`).

    Args:
        work: one block at least.
        cost: the cost model.
    """
    fixed, workers = cost.device.tile_seconds, cost.num_workers
    variable, num_items = work.rate * work.num_tokens, work.num_items
    total, least_items = float(variable @ num_items), int(num_items.sum())

    def unrounded(num_more: int) -> float:
        """Solve (total / x + num_more) * fixed + total = (x + fixed) * workers for x + fixed."""
        half = (total + (num_more - workers) * fixed) / (2 * workers)
        return fixed + half + (half * half + total * fixed / workers) ** 0.5

    def fits(seconds: float) -> bool:
        spare = max(seconds - fixed, 1e-12)
        return float(np.ceil(variable / spare) @ num_items) * fixed + total <= seconds * workers

    quantum = np.minimum(work.num_tokens, cost.device.kv_quantum)
    indivisible = float((work.rate * quantum).max()) + fixed
    undivided = (least_items * fixed + total) / workers
    low = max(indivisible, undivided, unrounded(0))
    if fits(low):
        return low
    high = max(low, unrounded(least_items))
    while high > low * 1.005:
        middle = (low * high) ** 0.5
        low, high = (low, middle) if fits(middle) else (middle, high)
    return low


def _tiles(seconds: Seconds, work: Work, cost: CostModel) -> tuple[Index, Index]:
    """Cut every block into equal tiles that take at most each of some times.

    Returns:
        [num_limits, num_blocks] tiles of each block, and tokens of each of its tiles.
    """
    quantum, num_tokens = cost.device.kv_quantum, work.num_tokens
    spare = np.maximum(seconds - cost.device.tile_seconds, 1e-12)
    least = np.maximum(1.0, np.ceil(work.rate * num_tokens / spare[:, None]))
    tile_tokens = np.maximum(1.0, np.ceil(num_tokens / (least * quantum))) * quantum
    num_tiles = np.maximum(1.0, np.ceil(num_tokens / tile_tokens))
    return num_tiles.astype(np.intp), tile_tokens.astype(np.intp)


def _is_good_enough(
    num_tiles: Index, tile_tokens: Index, work: Work, bound: float, cost: CostModel
) -> bool:
    """Whether the tiles of one limit end near the bound.

    Of many items it is enough that they can be stacked: a worker has no more items of one cost
    than end in time, so those of which k do find room beside each other k times at most.
    """
    workers = cost.num_workers
    if int(num_tiles[0] @ work.num_items) <= FEW_ITEMS * workers:
        (items,) = _falling(num_tiles, tile_tokens, work, cost)
        return _makespan(items, cost) <= bound * _GOOD_ENOUGH
    limit = bound * _GOOD_ENOUGH_OF_MANY
    seconds = work.rate * np.minimum(tile_tokens[0], work.num_tokens) + cost.device.tile_seconds
    num_stacked = np.minimum(limit / seconds, _MOST_STACKED).astype(np.intp)
    num_items = np.bincount(num_stacked, num_tiles[0] * work.num_items, _MOST_STACKED + 1)
    return bool((num_items.cumsum()[:-1] <= np.arange(_MOST_STACKED) * workers).all())


def _falling(num_tiles: Index, tile_tokens: Index, work: Work, cost: CostModel) -> list[_Items]:
    """List the items of each limit."""
    divided = np.flatnonzero((num_tiles > 1).any(axis=0))
    rest = work.num_tokens - (num_tiles - 1) * tile_tokens

    def of_all(rate: Seconds) -> Seconds:
        return np.concatenate((rest * rate, tile_tokens[:, divided] * rate[divided]), axis=1)

    seconds = of_all(work.rate) + cost.device.tile_seconds
    reading = of_all(work.reading) if work.is_mixed else None
    counts = np.concatenate((np.ones_like(num_tiles), num_tiles[:, divided] - 1), axis=1)
    counts *= np.concatenate((work.num_items, work.num_items[divided]))
    orders = enumerate(falling(seconds))
    return [
        _Items(
            seconds[at, order], None if reading is None else reading[at, order], counts[at, order]
        )
        for at, order in orders
    ]


def _best(items: list[_Items], tile_tokens: Index, merging: Seconds, cost: CostModel) -> int:
    """Choose the limit of the least seconds, merging included."""
    least = np.array([_least_makespan(of_limit, cost) for of_limit in items]) + merging
    best, least_found = -1, np.inf
    promising = least.argsort(kind="stable")[:_MOST_DEALT].tolist()
    for rank, at in enumerate(promising):
        # Limits close to each other often divide alike.
        is_new = all((tile_tokens[at] != tile_tokens[other]).any() for other in promising[:rank])
        if is_new and least[at] < least_found:
            seconds = _makespan(items[at], cost) + float(merging[at])
            best, least_found = (at, seconds) if seconds < least_found else (best, least_found)
    return best


def _makespan(items: _Items, cost: CostModel) -> float:
    """Deal items to workers where they have few each; else trust the bound."""
    workers = cost.num_workers
    if items.num.sum() > FEW_ITEMS * workers:
        return _least_makespan(items, cost)
    starts, makespan = _dealt(items.seconds.repeat(items.num), workers)
    if items.reading is None:
        return makespan
    # Items that all read at once read no faster than their even share, whatever others left them.
    return max(makespan, reading_end(starts, items.reading.repeat(items.num), workers))


def _least_makespan(items: _Items, cost: CostModel) -> float:
    """Return what dealing items by falling cost cannot beat.

    Some worker has k + 1 of the first `k x num_workers + 1` items, each of the last one's cost at
    least; and all work together takes its share of every worker.
    """
    workers = cost.num_workers
    ends = items.num.cumsum()
    heads = np.arange(0, ends[-1], workers)
    nth = items.seconds[ends.searchsorted(heads, side="right")]
    stacked = float((nth * np.arange(1, len(heads) + 1)).max())
    return max(stacked, float(items.seconds @ items.num) / workers)


def _dealt(seconds: Seconds, num_workers: int) -> tuple[Seconds, float]:
    """Return when each starts on the worker that is free first, and when all are done."""
    free = seconds[:num_workers][::-1].tolist()
    starts = np.zeros_like(seconds)
    starts[num_workers:] = [
        heapq.heapreplace(free, free[0] + taken) for taken in seconds[num_workers:].tolist()
    ]
    return starts, max(free)


def _merge_seconds(num_tiles: Index, blocks: Blocks, num_queries: int, cost: CostModel) -> Seconds:
    """[num_limits] seconds of merging: the queries of several tiles have a partial in each."""
    has_more = np.bincount(blocks.query, minlength=num_queries)[blocks.query] > 1
    always = np.add.reduceat(has_more, blocks.query_begin, dtype=np.intp)
    divided = np.where(num_tiles > 1, blocks.num_queries, always)
    return merge_seconds((num_tiles * divided).sum(axis=1), cost)


def merge_seconds(num_partials: Index | int, cost: CostModel) -> Seconds:
    """Seconds of writing and merging some numbers of partials."""
    return (cost.partials(num_partials) + cost.merge * (num_partials > 0)) / cost.num_workers
