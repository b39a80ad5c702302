"""Forests written by hand."""

from __future__ import annotations

import pytest

from bough.workloads import SUITES, forest_from_text


def test_levels_and_tokens_are_read() -> None:
    forest = forest_from_text("1,4,256|8,256,32", page_size=16)
    assert forest.num_nodes == 261
    assert forest.num_requests == 256
    assert forest.num_unique_tokens == 8 + 4 * 256 + 256 * 32
    assert forest.node_num_pages[0] == 1
    assert forest.num_path_tokens == 256 * (8 + 256 + 32)


def test_many_roots_repeats_and_one_length_for_all() -> None:
    assert (forest_from_text("8,64|512,32").node_parent < 0).sum() == 8
    assert forest_from_text("1,2,4,8,16,32,64,128,1024|16x9").num_requests == 1024
    assert forest_from_text("1,2,4|1024").num_unique_tokens == 7 * 1024


def test_children_are_dealt_evenly_in_order() -> None:
    assert forest_from_text("2,6|5,3").node_parent.tolist() == [-1, -1, 0, 0, 0, 1, 1, 1]


def test_forests_lie_side_by_side() -> None:
    forest = forest_from_text("3|16 + 1,2|64,5", page_size=16, query_len=2)
    assert forest.node_parent.tolist() == [-1, -1, -1, -1, 3, 3]
    assert forest.node_len.tolist() == [16, 16, 16, 64, 5, 5]
    assert forest.query_position[1::2].tolist() == [15, 15, 15, 68, 68]


def test_queries_are_the_newest_tokens_of_each_leaf() -> None:
    forest = forest_from_text("1,2|10,5", query_len=3)
    assert forest.query_position.tolist() == [12, 13, 14] * 2


def test_shuffled_pages_are_a_permutation() -> None:
    forest = forest_from_text("1,2|64,64", shuffle_seed=3)
    assert sorted(forest.page_indices.tolist()) == list(range(12))
    assert forest.page_indices.tolist() != list(range(12))


@pytest.mark.parametrize("suite", SUITES)
def test_every_named_workload_can_be_built(suite: str) -> None:
    for text in SUITES[suite]:
        forest = forest_from_text(text)
        assert forest.num_path_tokens >= forest.num_unique_tokens


@pytest.mark.parametrize(
    "text", ["", "1,2", "1,2|3,4,5", "2,3|4", "1,x|3", "0|5", "1,|3,4", "1|0", "1|2+"]
)
def test_what_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must"):
        forest_from_text(text)


def test_more_queries_than_a_leaf_has_tokens_are_refused() -> None:
    with pytest.raises(ValueError, match="query_len must be from 1 to the 3 tokens"):
        forest_from_text("1,2|9,3", query_len=4)
