"""Sums along paths and over subtrees, against walks from node to node."""

from __future__ import annotations

import numpy as np
import pytest

from bough.tree_order import (
    ancestor_jumps,
    argsort_small,
    distinct,
    sum_over_path,
    sum_over_subtree,
)


@pytest.mark.parametrize("num_nodes", [0, 1, 2, 9, 300])
@pytest.mark.parametrize("is_chain", [False, True])
def test_sums_are_those_of_walks_to_the_root(num_nodes: int, is_chain: bool) -> None:
    rng = np.random.default_rng(num_nodes)
    nodes = np.arange(num_nodes)
    parent = nodes - 1 if is_chain else rng.integers(-1, np.maximum(nodes, 0))
    shuffled = rng.permutation(num_nodes)
    parent_of = np.full(num_nodes, -1)
    parent_of[shuffled] = np.where(parent < 0, -1, np.append(shuffled, -1)[parent])
    values = rng.integers(0, 9, num_nodes)
    path, below = np.zeros(num_nodes, dtype=int), np.zeros(num_nodes, dtype=int)
    for node in range(num_nodes):
        above = node
        while above >= 0:
            path[node] += values[above]
            below[above] += values[node]
            above = int(parent_of[above])
    jumps = ancestor_jumps(parent_of)
    assert sum_over_path(values, jumps).tolist() == path.tolist()
    assert sum_over_subtree(values, jumps).tolist() == below.tolist()


@pytest.mark.parametrize("parent", [[0], [1, 0], [-1, 2, 3, 1]])
def test_a_node_above_itself_is_refused(parent: list[int]) -> None:
    with pytest.raises(ValueError, match="node_parent must be free of cycles"):
        ancestor_jumps(np.array(parent))


def test_short_and_long_numbers_are_sorted_stably() -> None:
    values = np.random.default_rng(0).integers(0, 50, 500)
    expected = values.argsort(kind="stable").tolist()
    assert argsort_small(values, 50).tolist() == expected
    assert argsort_small(values, 1 << 20).tolist() == expected


def test_distinct_numbers_and_their_places_give_the_numbers_back() -> None:
    counts = np.array([3, 1, 3, 0, 8])
    found, at = distinct(counts)
    assert found.tolist() == [0, 1, 3, 8]
    assert found[at].tolist() == counts.tolist()
