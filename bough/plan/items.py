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
        tile_class: [num_tiles] place of each tile's height in `Device.tile_heights`.
        num_heads: [num_tiles] head splits that an item of each tile covers.
        tile_seconds: [num_tiles] what an item of each tile takes.
        cost: the cost model.
    """
    splits, num_classes = cost.num_head_splits, len(cost.device.tile_heights)
    per_tile = splits // num_heads
    tile = np.arange(len(num_heads)).repeat(per_tile)
    nth = np.arange(len(tile)) - (per_tile.cumsum() - per_tile)[tile]
    order = falling(tile_seconds[tile])
    order = order[tile_class[tile[order]].astype(np.uint8).argsort(kind="stable")]
    class_indptr = np.zeros(num_classes + 1, dtype=np.intp)
    np.bincount(tile_class, per_tile, num_classes).astype(np.intp).cumsum(out=class_indptr[1:])
    class_seconds = np.bincount(tile_class, tile_seconds * per_tile, num_classes).astype(np.float64)
    return Items(
        item=(tile * splits + nth * num_heads[tile])[order],
        seconds=tile_seconds[tile[order]],
        class_indptr=class_indptr,
        class_workers=_share(class_seconds, cost.device.num_workers),
    )


def _share(seconds: Seconds, num_workers: int) -> Index:
    """Give each class that has work its share of the workers, and one at least."""
    has_work = seconds > 0
    if not has_work.any():
        return np.zeros(len(seconds), dtype=np.intp)
    ideal = seconds / seconds.sum() * num_workers
    workers = np.where(has_work, np.maximum(1, np.rint(ideal)), 0).astype(np.intp)
    workers[workers.argmax()] += max(num_workers - int(workers.sum()), 1 - int(workers.max()))
    return workers


def falling(seconds: Seconds) -> Index:
    """Sort the last axis by falling seconds, to a 65535th of the largest; the first come first."""
    scale = 65535.0 / seconds.max(initial=1e-30)
    return (65535.0 - seconds * scale).astype(np.uint16).argsort(kind="stable")
