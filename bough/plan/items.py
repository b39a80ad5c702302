"""The order of work: tiles on their stored heads, class by class, the longest first."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bough.plan.cost import CostModel
from bough.tree_order import Index

Seconds = npt.NDArray[np.float64]


class Items(NamedTuple):
    """What programs run.

    Attributes:
        item: [num_items] `tile * num_head_splits + first head`, by class, then by falling cost.
        seconds: [num_items] what each takes.
        class_indptr: [num_classes + 1] items of each class of tiles.
        class_workers: [num_classes] workers that share the work of each class.
    """

    item: Index
    seconds: Seconds
    class_indptr: Index
    class_workers: Index


def list_items(
    tile_class: Index, num_heads: Index, tile_seconds: Seconds, cost: CostModel
) -> Items:
    """Sort items by class, and share the workers among the classes.

    Args:
        tile_class: [num_tiles] place of each tile's height in `CostModel.tile_heights`.
        num_heads: [num_tiles] head splits that an item of each tile covers.
        tile_seconds: [num_tiles] what an item of each tile takes.
        cost: the cost model.
    """
    splits, num_classes = cost.num_head_splits, len(cost.tile_heights)
    order = falling(tile_seconds)
    order = order[tile_class[order].astype(np.uint8).argsort(kind="stable")]
    step = num_heads[order]
    per_tile = splits // step
    seconds = tile_seconds[order]
    ends = per_tile.cumsum()
    # Items of a tile follow each other, `step` heads apart.
    first = order * splits - (ends - per_tile) * step
    item = first.repeat(per_tile)
    item += np.arange(len(item)) * step.repeat(per_tile)
    group = tile_class[order]
    num_items = np.bincount(group, per_tile, num_classes).astype(np.intp)
    class_indptr = np.zeros(num_classes + 1, dtype=np.intp)
    num_items.cumsum(out=class_indptr[1:])
    class_seconds = np.bincount(group, seconds * per_tile, num_classes)
    return Items(
        item=item,
        seconds=seconds.repeat(per_tile),
        class_indptr=class_indptr,
        class_workers=_share(class_seconds.tolist(), cost.num_workers),
    )


def _share(seconds: list[float], num_workers: int) -> Index:
    """Give each class that has work its share of the workers and one at least, the rest to one."""
    total = sum(seconds)
    workers = [max(1, round(taken / total * num_workers)) if taken else 0 for taken in seconds]
    if total:
        most = max(workers)
        workers[workers.index(most)] += max(num_workers - sum(workers), 1 - most)
    return np.array(workers, dtype=np.intp)


def falling(seconds: Seconds) -> Index:
    """Sort the last axis by falling seconds, to a 65535th of the largest; the first come first."""
    scale = 65535.0 / seconds.max(initial=1e-30)
    return (65535.0 - seconds * scale).astype(np.uint16).argsort(kind="stable")
