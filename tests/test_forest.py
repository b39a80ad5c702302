"""Forests from page tables and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from bough.forest import Forest
from tests.forests import forests, page_tables


@settings(max_examples=200, deadline=None)
@given(page_tables())
def test_each_query_sees_the_slots_of_its_row(drawn: tuple) -> None:
    table, lens, query_lens, page_size = drawn
    forest = Forest.from_page_table(table, lens, page_size, query_lens)
    query = 0
    for row, length, count in zip(table, lens, query_lens, strict=True):
        for position in range(length - count, length):
            expected = [
                int(row[at // page_size]) * page_size + at % page_size for at in range(position + 1)
            ]
            assert path_slots(forest, query) == expected
            query += 1
    assert query == forest.num_queries


def path_slots(forest: Forest, query: int) -> list[int]:
    slots: list[int] = []
    node, position = int(forest.query_node[query]), int(forest.query_position[query])
    while node >= 0:
        first, start = int(forest.node_page_start[node]), int(forest.node_start[node])
        size = forest.page_size
        here = [
            int(forest.page_indices[first + token // size]) * size + token % size
            for token in range(int(forest.node_len[node]))
            if start + token <= position
        ]
        slots = here + slots
        node = int(forest.node_parent[node])
    return slots


@settings(max_examples=100, deadline=None)
@given(page_tables())
def test_pages_are_shared_exactly_as_far_as_rows_agree(drawn: tuple) -> None:
    table, lens, query_lens, page_size = drawn
    forest = Forest.from_page_table(table, lens, page_size, query_lens)
    columns = -(-lens // page_size)
    prefixes = {
        tuple(row[: at + 1]) for row, n in zip(table, columns, strict=True) for at in range(n)
    }
    assert forest.node_num_pages.sum() == len(prefixes)


@settings(max_examples=100, deadline=None)
@given(forests())
def test_subtree_ranges_hold_exactly_the_queries_below(forest: Forest) -> None:
    order, begin, end = forest.subtree
    for node in range(forest.num_nodes):
        below = set()
        for query in range(forest.num_queries):
            at = int(forest.query_node[query])
            while at >= 0 and at != node:
                at = int(forest.node_parent[at])
            if at == node:
                below.add(query)
        assert set(order[begin[node] : end[node]].tolist()) == below
        own = order[begin[node] : begin[node] + forest.node_num_queries[node]]
        assert (forest.query_node[own] == node).all()


def test_depth_does_not_depend_on_the_order_of_nodes() -> None:
    forest = Forest(
        page_size=4,
        node_parent=np.array([2, -1, 1, 0], dtype=np.int32),
        node_start=np.array([8, 0, 4, 12], dtype=np.int32),
        node_len=np.full(4, 4, dtype=np.int32),
        node_first_slot=np.zeros(4, dtype=np.int32),
        node_page_start=np.arange(4),
        node_num_pages=np.ones(4, dtype=np.int32),
        page_indices=np.arange(4, dtype=np.int32),
        query_indptr=np.array([0, 1], dtype=np.int32),
        query_node=np.array([3], dtype=np.int32),
        query_position=np.array([15], dtype=np.int32),
        max_page=3,
    )
    assert forest.node_depth.tolist() == [2, 0, 1, 3]


def test_requests_that_share_a_ragged_page_may_differ_in_length() -> None:
    forest = Forest.from_page_table([[4, 5], [4, 5]], [20, 27], 16)
    assert forest.num_nodes == 1
    assert forest.node_len.tolist() == [27]
    assert forest.query_position.tolist() == [19, 26]
    assert forest.num_path_tokens == 47


def test_equal_pages_in_later_columns_alone_are_not_shared() -> None:
    forest = Forest.from_page_table([[0, 7], [1, 7]], [32, 32], 16)
    assert forest.num_nodes == 2


def test_older_queries_lie_in_the_nodes_that_hold_them() -> None:
    forest = Forest.from_page_table([[0, 1], [0, 2]], [18, 18], 16, [4, 1])
    sees = forest.node_start[forest.query_node]
    assert (forest.query_position >= sees).all()
    assert forest.query_node[0] == forest.query_node[1] != forest.query_node[2]


def test_columns_outside_every_window_may_hold_anything() -> None:
    table = [[-5, 1, 2], [2**31 - 1, 1, 2]]
    forest = Forest.from_page_table(table, [40, 41], 16, window=8, num_pages=3)
    assert forest.num_requests == 2
    with pytest.raises(ValueError, match=r"page_table\[0, 0\] must be from 0 to 2, got -5"):
        Forest.from_page_table(table, [40, 41], 16, num_pages=3)


def test_torch_tensors_and_int64_are_read_too() -> None:
    table = torch.tensor([[3, 1], [3, 2]])
    forest = Forest.from_page_table(table, torch.tensor([20, 30]), 16)
    assert forest.num_nodes == 3


def test_pages_beyond_32_bits_stay_out_of_range() -> None:
    assert Forest.from_page_table([[0, 2**40]], [20], 16).max_page == 2**31 - 1
    assert Forest.from_page_table([[0, 2**40]], [16], 16).max_page == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[0, 1]], [40], 16), r"seq_lens\[0\] must be from 0 to 32, got 40"),
        (([[0, 1]], [-1], 16), r"seq_lens\[0\] must be from 0 to 32, got -1"),
        (([[0, 1]], [20, 3], 16), r"seq_lens must be \[1\], got \(2,\)"),
        (([0, 1], [20], 16), "page_table must be"),
        (([[0.5]], [1], 16), "page_table must be of an integer dtype, got float64"),
        (([[0, 1]], [2**40], 16), r"seq_lens\[0\] must be from 0 to 32, got 2147483647"),
        (([[0, -(2**40)]], [20], 16), r"page_table\[0, 1\] must be at least 0, got -2147483648"),
        (([[0, -3]], [20], 16), r"page_table\[0, 1\] must be at least 0, got -3"),
        (([[0, 1]], [20], 0), "page_size must be at least 1, got 0"),
        (([[0, 1]], [20], 16, [21]), r"query_lens\[0\] must be from 0 to its seq_lens, got 21"),
    ],
)
def test_a_bad_page_table_is_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Forest.from_page_table(*arguments)


def test_a_query_outside_its_node_is_refused() -> None:
    with pytest.raises(ValueError, match=r"query_position\[0\] must be in its node"):
        Forest.from_nodes(
            page_size=4,
            node_parent=[-1],
            node_len=[3],
            node_pages=[[0]],
            query_node=[0],
            query_position=[3],
        )


def test_a_node_longer_than_its_pages_is_refused() -> None:
    with pytest.raises(ValueError, match=r"node_len\[0\] must be at most the slots of its pages"):
        Forest.from_nodes(
            page_size=4, node_parent=[-1], node_len=[5], node_pages=[[0]], query_node=[0]
        )
