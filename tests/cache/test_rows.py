from __future__ import annotations

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from bough.cache import QuerySpan, RadixNode
from bough.cache.rows import NodeRows
from bough.forest import Forest
from tests.cache.oracle import describe, make_tree

PAGE_SIZE = 2


def test_the_forest_of_an_empty_tree_is_empty() -> None:
    _, tree = make_tree(4, PAGE_SIZE)
    forest = tree.forest([])
    assert (forest.num_nodes, forest.num_queries, forest.num_requests) == (0, 0, 0)


def test_spans_become_requests_in_their_order() -> None:
    _, tree = make_tree(8, PAGE_SIZE)
    first, second = tree.insert([1, 2, 3]), tree.insert([1, 2, 3, 4, 5, 6])
    forest = tree.forest([QuerySpan(second, 4, 2), QuerySpan(first, 0, 3), QuerySpan(second, 3, 1)])
    assert forest.query_indptr.tolist() == [0, 2, 5, 6]
    assert forest.query_position.tolist() == [4, 5, 0, 1, 2, 3]
    rows = (first.row, second.row)
    assert forest.query_node.tolist() == [rows[1]] * 2 + [rows[0]] * 3 + [rows[1]]
    assert forest.node_parent[list(rows)].tolist() == [-1, rows[0]]


@pytest.mark.parametrize("span", [(-1, 1), (0, 4), (3, 1), (0, 0), (1, -1)], ids=str)
def test_queries_outside_their_node_are_refused(span: tuple[int, int]) -> None:
    _, tree = make_tree(8, PAGE_SIZE)
    node = tree.insert([1, 2, 3])
    with pytest.raises(ValueError, match=r"spans\[1\] must be 1 or more queries inside a locked"):
        tree.forest([QuerySpan(node, 0, 1), QuerySpan(node, *span)])


@pytest.mark.parametrize("num_others", [0, 1])
def test_queries_in_nodes_that_are_not_locked_are_refused(num_others: int) -> None:
    _, tree = make_tree(8, PAGE_SIZE)
    others = [tree.insert([2]) for _ in range(num_others)]
    node = tree.insert([1, 2, 3])
    node.num_computed = 3
    tree.release(node)
    with pytest.raises(ValueError, match=r"spans\[0\] must be 1 or more queries inside a locked"):
        tree.forest([QuerySpan(node, 0, 1)])
    assert len(others) == num_others


def test_rows_of_unlocked_nodes_are_dead_until_they_are_used_again() -> None:
    _, tree = make_tree(8, PAGE_SIZE)
    first, second = tree.insert([1, 2, 3]), tree.insert([4])
    row = first.row
    tree.release(first)
    forest = tree.forest([QuerySpan(second, 0, 1)])
    dead = (forest.node_parent, forest.node_start, forest.node_len, forest.node_num_pages)
    assert [int(values[row]) for values in dead] == [-1, 0, 0, 0]
    assert tree.insert([5, 6]).row == row


def test_a_step_of_appends_shares_the_pages_of_the_snapshot_before() -> None:
    _, tree = make_tree(64, PAGE_SIZE)
    leaf = tree.fork(tree.insert([1] * 50))
    tree.append(leaf, 2)
    before = tree.forest([])
    tree.append(leaf, 3)
    assert np.shares_memory(before.page_indices, tree.forest([]).page_indices)


def test_a_snapshot_keeps_its_content_while_leaves_outgrow_the_buffer() -> None:
    pool, tree = make_tree(3000, 1)
    leaves = [tree.fork(tree.insert([first])) for first in range(4)]
    kept = []
    for step in range(700):
        for leaf in leaves:
            tree.append(leaf, step)
        if step % 100 == 0:
            forest = tree.forest([QuerySpan(leaf, leaf.end - 1, 1) for leaf in leaves])
            kept.append((forest, describe(forest)))
    assert all(describe(forest) == content for forest, content in kept)
    assert pool.num_free == 3000 - 4 * 701
    forest = tree.forest([])
    for leaf in leaves:
        begin = int(forest.node_page_start[leaf.row])
        assert forest.page_indices[begin : begin + 700].tolist() == leaf.pages
    assert forest.max_page == max(max(leaf.pages) for leaf in leaves)


class RowsMachine(RuleBasedStateMachine):
    """Rows beside the nodes they stand for; pages are numbered as they come."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = NodeRows(PAGE_SIZE)
        self.nodes: list[RadixNode] = []
        self.num_pages = 0
        self.kept: list[tuple[Forest, object]] = []

    @rule(data=st.data(), num_pages=st.integers(1, 400))
    def add_closed(self, data: st.DataObject, num_pages: int) -> None:
        closed = [node for node in self.nodes if not node.is_open]
        parent = data.draw(st.sampled_from([None, *closed]))
        node = RadixNode(parent=parent, salt="", start=parent.end if parent else 0)
        node.pages = self.new_pages(num_pages)
        node.tokens = [0] * (num_pages * PAGE_SIZE)
        self.rows.add(node)
        self.nodes.append(node)

    @precondition(lambda self: self.nodes)
    @rule(data=st.data(), num_pages=st.integers(0, 100))
    def add_open(self, data: st.DataObject, num_pages: int) -> None:
        parent = data.draw(st.sampled_from([node for node in self.nodes if not node.is_open]))
        node = RadixNode(parent=parent, salt="", start=parent.end, is_open=True)
        self.rows.add(node)
        self.nodes.append(node)
        self.grow(node, num_pages)

    @precondition(lambda self: any(node.is_open for node in self.nodes))
    @rule(data=st.data(), num_pages=st.integers(1, 100))
    def grow_open(self, data: st.DataObject, num_pages: int) -> None:
        node = data.draw(st.sampled_from([node for node in self.nodes if node.is_open]))
        self.grow(node, num_pages)

    @precondition(lambda self: any(not node.is_open for node in self.nodes))
    @rule(data=st.data())
    def split(self, data: st.DataObject) -> None:
        lower = data.draw(st.sampled_from([node for node in self.nodes if not node.is_open]))
        if len(lower.tokens) < 2:
            return
        length = data.draw(st.integers(1, len(lower.tokens) - 1))
        num_slots = lower.first_slot + length
        upper = RadixNode(parent=lower.parent, salt="", start=lower.start)
        upper.tokens, lower.tokens = lower.tokens[:length], lower.tokens[length:]
        upper.pages = lower.pages[: -(-num_slots // PAGE_SIZE)]
        lower.pages = lower.pages[num_slots // PAGE_SIZE :]
        upper.first_slot, lower.first_slot = lower.first_slot, num_slots % PAGE_SIZE
        lower.parent, lower.start = upper, lower.start + length
        self.rows.split(upper, lower)
        self.nodes.append(upper)

    @precondition(lambda self: self.nodes)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        parents = {node.parent for node in self.nodes}
        node = data.draw(st.sampled_from([node for node in self.nodes if node not in parents]))
        self.rows.remove(node)
        self.nodes.remove(node)

    @invariant()
    def the_forest_says_what_the_nodes_say(self) -> None:
        forest = self.rows.snapshot([])
        for node in self.nodes:
            begin, row = int(forest.node_page_start[node.row]), node.row
            assert forest.page_indices[begin : begin + len(node.pages)].tolist() == node.pages
            assert forest.node_num_pages[row] == len(node.pages)
            assert forest.node_parent[row] == (node.parent.row if node.parent else -1)
            own = (node.start, len(node.tokens), node.first_slot)
            assert own == tuple(
                int(values[row])
                for values in (forest.node_start, forest.node_len, forest.node_first_slot)
            )
        assert len({node.row for node in self.nodes}) == len(self.nodes)
        assert np.count_nonzero(forest.node_len) <= len(self.nodes)
        self.kept.append((forest, describe(forest)))

    def teardown(self) -> None:
        assert all(describe(forest) == content for forest, content in self.kept)

    def grow(self, node: RadixNode, num_pages: int) -> None:
        """Half of the pages one by one, the others at once."""
        pages = self.new_pages(num_pages)
        half = num_pages // 2
        for new in [*([page] for page in pages[:half]), *filter(None, [pages[half:]])]:
            node.pages.extend(new)
            node.tokens.extend([0] * (PAGE_SIZE * len(new)))
            self.rows.add_pages(node)
            self.rows.set_length(node)

    def new_pages(self, num_pages: int) -> list[int]:
        self.num_pages += num_pages
        return list(range(self.num_pages - num_pages, self.num_pages))


TestRowsMachine = RowsMachine.TestCase
TestRowsMachine.settings = settings(max_examples=20, stateful_step_count=30, deadline=None)
