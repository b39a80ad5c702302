"""A forest's page ids on a plan's device: shared where possible, else changes are copied."""

from __future__ import annotations

import numpy as np
import torch

from bough.forest import Forest, IntArray
from bough.plan.buffer import pinned
from bough.tree_order import is_same


class PageIds:
    """The forest's `page_indices` as a tensor.

    Args:
        device: where it lives, as torch writes it.
        capacity: entries of a tensor whose address must not change; None lets it follow the
            forest, and share its memory on a CPU.
    """

    def __init__(self, device: str, capacity: int | None) -> None:
        self._capacity = capacity
        self.tensor = torch.zeros(capacity or 0, dtype=torch.int32, device=device)
        self._is_host = self.tensor.device.type == "cpu"
        self._written: Forest | None = None

    def follow(self, forest: Forest) -> bool:
        """Take over the page ids of a forest that fits the capacity.

        Returns:
            whether `tensor` is another one now.
        """
        indices = forest.page_indices
        if self._is_host and self._capacity is None:
            return self._share(forest)
        is_new = len(indices) > len(self.tensor)
        if is_new:
            self.tensor = self.tensor.new_zeros(1 << (len(indices) - 1).bit_length())
        low, high = 0, len(indices)
        if self._written is not None and not is_new:
            low, high = changed_pages(self._written, forest)
        if low < high:
            self._copy(indices, low, high)
        self._written = forest
        return is_new

    def _share(self, forest: Forest) -> bool:
        indices, written = forest.page_indices, self._written
        self._written = forest
        if written is not None and indices.flags.writeable:
            is_there = _is_same_memory(written.page_indices, indices)
            if is_there and len(indices) <= len(self.tensor):
                return False
        self.tensor = torch.from_numpy(indices if indices.flags.writeable else indices.copy())
        return True

    def _copy(self, indices: IntArray, low: int, high: int) -> None:
        target = self.tensor[low:high]
        source = target if self._is_host else pinned(high - low)
        source.numpy()[:] = indices[low:high]
        if source is not target:
            target.copy_(source, non_blocking=True)


def changed_pages(written: Forest, forest: Forest) -> tuple[int, int]:
    """Say in which range of `page_indices` the pages of a forest differ from an earlier one's.

    In shared memory these are pages that nodes did not name before; other memory may hold anything.
    """
    indices = forest.page_indices
    is_there = _is_same_memory(written.page_indices, indices)
    if not is_there or written.num_nodes != forest.num_nodes:
        return 0, len(indices)
    start, count = forest.node_page_start, forest.node_num_pages
    if is_same(start, written.node_page_start) and is_same(count, written.node_num_pages):
        return 0, 0
    moved = (start != written.node_page_start) | (count != written.node_num_pages)
    first = start[moved]
    return int(first.min()), int((first + count[moved]).max())


def _is_same_memory(array: IntArray, other: IntArray) -> bool:
    if array is other:
        return True
    return np.may_share_memory(array[:1], other[:1]) and array.strides == other.strides
