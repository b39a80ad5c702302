"""Sums along the paths of a forest and over its subtrees, and other passes over short arrays.

A path of 2 ** n nodes takes n passes. Only parents are known here."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from bough.expect import expect

Index = npt.NDArray[np.intp]


def ancestor_jumps(parent: npt.NDArray[np.integer]) -> list[Index]:
    """Find the ancestors 1, 2, 4, ... steps above every node, as far as some node has one.

    Args:
        parent: [num_nodes] -1 for a root; in any order.

    Returns:
        arrays [num_nodes + 1]; the index `num_nodes` stands for no node, above which is none.

    Raises:
        ValueError: a node is its own ancestor.
    """
    none = len(parent)
    ancestor = np.empty(none + 1, dtype=np.intp)
    ancestor[:none] = parent
    ancestor[none] = none
    ancestor[ancestor < 0] = none
    jumps: list[Index] = []
    while (ancestor < none).any():
        # Without a cycle some node has 2 ** len(jumps) nodes above it.
        expect(none >> len(jumps) > 0, "node_parent", "free of cycles", parent)
        jumps.append(ancestor)
        ancestor = ancestor[ancestor]
    return jumps


def sum_over_path(values: npt.NDArray[np.integer], jumps: list[Index]) -> Index:
    """[num_nodes] sums of a node's value and those of all nodes above it."""
    total = np.zeros(len(values) + 1, dtype=np.intp)
    total[:-1] = values
    for ancestor in jumps:
        total += total[ancestor]
    return total[:-1]


def sum_over_subtree(values: npt.NDArray[np.integer], jumps: list[Index]) -> Index:
    """[num_nodes] sums of a node's value and those of all nodes below it."""
    total = np.zeros(len(values) + 1)
    total[:-1] = values
    for ancestor in jumps:
        total += np.bincount(ancestor, total, len(total))
    return total[:-1].astype(np.intp)


def first_below(
    parent: npt.NDArray[np.integer], own: Index, total: Index, jumps: list[Index]
) -> Index:
    """[num_nodes] where each subtree begins when all are laid out depth first.

    Args:
        parent: [num_nodes] -1 for a root.
        own: [num_nodes] items of each node, which stand before those below it.
        total: [num_nodes] items of its subtree.
        jumps: `ancestor_jumps(parent)`.
    """
    if not jumps:
        return total.cumsum() - total
    above = jumps[0]
    by_parent = argsort_small(above[:-1], len(above))
    sizes = total[by_parent]
    after_parent = np.empty_like(total)
    after_parent[by_parent] = sizes.cumsum() - sizes
    # Siblings are neighbours in that order, after the children of smaller parents.
    children = total - own
    shift = np.empty(len(above), dtype=np.intp)
    shift[:-1] = own + children - children.cumsum()
    shift[-1] = -children.sum()
    return sum_over_path(after_parent + shift[above[:-1]], jumps)


def argsort_small(values: npt.NDArray[np.integer], stop: int) -> Index:
    """Sort numbers from 0 to `stop` - 1 stably; of 16 bits they are sorted by radix, in O(n)."""
    return (values.astype(np.uint16) if stop <= 1 << 16 else values).argsort(kind="stable")


def distinct(counts: Index) -> tuple[Index, Index]:
    """Return the distinct ones of some small numbers, ascending, and where each number is there."""
    found = np.bincount(counts).nonzero()[0]
    place = np.zeros(int(counts.max(initial=0)) + 1, dtype=np.intp)
    place[found] = np.arange(len(found))
    return found, place[counts]


def has_any(flags: npt.NDArray[np.bool_]) -> bool:
    """Whether one of few flags is set; quicker than asking numpy."""
    return b"\1" in flags.tobytes()


def is_same(array: npt.NDArray[Any], other: npt.NDArray[Any]) -> bool:
    """Whether two arrays are one, or hold the same numbers; quicker than comparing entries."""
    return array is other or array.tobytes() == other.tobytes()
