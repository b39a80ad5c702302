"""The batch's prefix forest, a snapshot in flat arrays. No schedule and no storage here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from bough.drafts import Words, newest_hidden_words, num_hidden
from bough.expect import expect, expect_all
from bough.page_trie import IntArray, int_array, read_page_table
from bough.tree_order import (
    Index,
    ancestor_jumps,
    argsort_small,
    first_below,
    sum_over_path,
    sum_over_subtree,
)

_OF_NODES = ("node_start", "node_len", "node_first_slot", "node_page_start", "node_num_pages")


@dataclass(frozen=True, kw_only=True, eq=False)
class Forest:
    """Nodes of shared KV tokens, and the queries that end in them.

    A node is a run of KV tokens that the same requests share. Token `j` of a node lies at
    position `node_start + j` of its requests, in slot `node_first_slot + j` counted from the start
    of the node's first page; its pages are
    `page_indices[node_page_start : node_page_start + node_num_pages]`, and pages beyond the
    node's length are reserved for its growth. Nodes stand in any order. A query at position p
    sees the tokens on the path from its node to the root whose position is at most p.

    Args:
        page_size: slots per page.
        node_parent: [num_nodes] index of the parent, -1 for a root.
        node_start: [num_nodes] tokens on the path above the node.
        node_len: [num_nodes] tokens in the node.
        node_first_slot: [num_nodes] slot of the node's first token in its first page.
        node_page_start: [num_nodes] where the node's pages start in `page_indices`.
        node_num_pages: [num_nodes] pages, reserved ones included.
        page_indices: physical page ids; regions that no node names may hold anything.
        query_indptr: [num_requests + 1] request r owns queries `query_indptr[r] : [r + 1]`.
        query_node: [num_queries] node in which the query ends, -1 where it sees nothing.
        query_position: [num_queries] position of the query, -1 where it sees nothing.
        max_page: the largest page id that any node names, -1 for none.
        query_hidden: [num_queries] which of the 63 tokens before it each query does not see, as
            `bough.drafts` says; None where all are seen.

    Raises:
        ValueError: array lengths disagree, or a node or query points out of range.
    """

    page_size: int
    node_parent: IntArray
    node_start: IntArray
    node_len: IntArray
    node_first_slot: IntArray
    node_page_start: npt.NDArray[np.int64]
    node_num_pages: IntArray
    page_indices: IntArray
    query_indptr: IntArray
    query_node: IntArray
    query_position: IntArray
    max_page: int
    query_hidden: Words | None = None

    def __post_init__(self) -> None:
        expect(self.page_size >= 1, "page_size", "at least 1", self.page_size)
        num_nodes = len(self.node_parent)
        for name in _OF_NODES:
            if len(values := getattr(self, name)) != num_nodes:
                expect(False, name, "one a node", len(values))
        stop = np.append(self.node_start + self.node_len, np.int32(0))
        # Index -1, no node, is the last entry.
        is_met = self.node_start == stop[self.node_parent]
        expect_all(is_met, "node_start", "its parent's end, 0 for a root", self.node_start)
        expect_all(self.node_len >= 0, "node_len", "at least 0", self.node_len)
        capacity = self.node_num_pages * self.page_size - self.node_first_slot
        is_met = self.node_len <= capacity
        expect_all(is_met, "node_len", "at most the slots of its pages", self.node_len)
        expect(
            len(self.query_node) == len(self.query_position) == self.query_indptr[-1],
            "query_node and query_position",
            f"of length query_indptr[-1] = {self.query_indptr[-1]}",
            (len(self.query_node), len(self.query_position)),
        )
        is_met = self.query_node < num_nodes
        expect_all(is_met, "query_node", "a node", self.query_node)
        begin = np.append(self.node_start, np.int32(-1))[self.query_node]
        is_met = (self.query_position >= begin) & (self.query_position < stop[self.query_node])
        expect_all(is_met, "query_position", "in its node, or -1", self.query_position)
        if self.query_hidden is not None:
            count = len(self.query_hidden)
            expect(count == self.num_queries, "query_hidden", "one a query", count)

    @classmethod
    def from_page_table(
        cls,
        page_table: Any,
        seq_lens: Any,
        page_size: int,
        query_lens: Any = None,
        *,
        window: int | None = None,
        num_pages: int | None = None,
    ) -> Forest:
        """Find what requests share: equal pages in every column from the first on.

        Args:
            page_table: [num_requests, max_pages] int, physical page of each column; columns past
                a request's length are never read.
            seq_lens: [num_requests] int, KV tokens with the new queries included; 0 is padding.
            page_size: slots per page.
            query_lens: [num_requests] int, how many of the newest tokens are queries; 1 each
                when None.
            window: columns that lie wholly outside this window of every query of their request
                may hold anything.
            num_pages: pages that exist; page ids are checked against it.

        Raises:
            ValueError: a shape, a length or a page id is out of range.
        """
        trie = read_page_table(page_table, seq_lens, page_size, query_lens)
        trie.check_page_ids(page_size, window, num_pages)
        start = trie.begin * np.int32(page_size)
        query_indptr, query_node, query_position = trie.queries(page_size)
        return cls(
            page_size=page_size,
            node_parent=trie.parent,
            node_start=start,
            node_len=trie.node_len(page_size),
            node_first_slot=np.zeros_like(start),
            node_page_start=trie.row.astype(np.int64) * trie.table.shape[1] + trie.begin,
            node_num_pages=trie.end - trie.begin,
            page_indices=trie.table.reshape(-1),
            query_indptr=query_indptr,
            query_node=query_node,
            query_position=query_position,
            max_page=int(trie.table.max(initial=-1)),
        )

    @classmethod
    def from_nodes(
        cls,
        *,
        page_size: int,
        node_parent: npt.ArrayLike,
        node_len: npt.ArrayLike,
        node_pages: Sequence[npt.ArrayLike],
        query_node: npt.ArrayLike,
        query_position: npt.ArrayLike | None = None,
        query_indptr: npt.ArrayLike | None = None,
        node_first_slot: npt.ArrayLike | None = None,
    ) -> Forest:
        """Describe a forest by hand, parents before children; shapes are those of `Forest`.

        Args:
            page_size: slots per page.
            node_parent: parent of each node, -1 for a root.
            node_len: tokens of each node.
            node_pages: pages of each node.
            query_node: node in which each query ends, -1 for a query that sees nothing.
            query_position: position of each query; the last token of its node when None.
            query_indptr: requests as ranges of queries; one query a request when None.
            node_first_slot: slot of each node's first token; 0 when None.

        Raises:
            ValueError: a child stands before its parent, or what `Forest` refuses.
        """
        parent, length = int_array(node_parent), int_array(node_len)
        is_ordered = parent < np.arange(len(parent))
        expect_all(is_ordered, "node_parent", "smaller than the node's own index", parent)
        start = np.zeros_like(length)
        for node, above in enumerate(parent):
            if above >= 0:
                start[node] = start[above] + length[above]
        pages = [int_array(pages) for pages in node_pages]
        counts = int_array([len(of_node) for of_node in pages])
        indices = np.concatenate([*pages, np.zeros(0, dtype=np.int32)])
        expect_all(indices >= 0, "node_pages", "at least 0", indices)
        queries = int_array(query_node)
        last = np.append(start + length - 1, np.int32(-1))[queries]
        return cls(
            page_size=page_size,
            node_parent=parent,
            node_start=start,
            node_len=length,
            node_first_slot=np.zeros_like(parent)
            if node_first_slot is None
            else int_array(node_first_slot),
            node_page_start=np.cumsum(counts, dtype=np.int64) - counts,
            node_num_pages=counts,
            page_indices=indices,
            query_indptr=int_array(
                range(len(queries) + 1) if query_indptr is None else query_indptr
            ),
            query_node=queries,
            query_position=last if query_position is None else int_array(query_position),
            max_page=int(indices.max(initial=-1)),
        )

    def with_drafts(self, parents: Sequence[npt.ArrayLike]) -> Forest:
        """Let the newest queries of requests be draft trees, stored in order behind the others.

        Args:
            parents: for each request, [num_drafts] the draft that each of its drafts continues, by
                index among them and before it, -1 for the token before all drafts; 64 at most.

        Raises:
            ValueError: a request has fewer queries, or a draft stands before its parent.
        """
        return replace(self, query_hidden=newest_hidden_words(parents, self.query_indptr))

    @property
    def rotary_position(self) -> IntArray:
        """[num_queries] tokens that each query sees before itself; -1 where it sees nothing."""
        if self.query_hidden is None:
            return self.query_position
        return self.query_position - num_hidden(self.query_hidden)

    @property
    def num_nodes(self) -> int:
        return len(self.node_parent)

    @property
    def num_queries(self) -> int:
        return len(self.query_node)

    @property
    def num_requests(self) -> int:
        return len(self.query_indptr) - 1

    @property
    def num_unique_tokens(self) -> int:
        """KV tokens stored in the forest."""
        return int(self.node_len.sum())

    @property
    def num_path_tokens(self) -> int:
        """KV tokens that attention request by request reads: each request's path on its own."""
        owns_queries = self.query_indptr[1:] > self.query_indptr[:-1]
        last = self.query_indptr[1:][owns_queries] - 1
        return int((self.query_position[last] + 1).sum(dtype=np.int64))

    @cached_property
    def node_depth(self) -> IntArray:
        """[num_nodes] 0 for a root.

        Raises:
            ValueError: a node is its own ancestor.
        """
        above = sum_over_path(np.ones_like(self.node_parent), self._jumps)
        return (above - 1).astype(np.int32)

    @cached_property
    def levels(self) -> list[Index]:
        """Nodes by depth, roots first."""
        order = np.argsort(self.node_depth, kind="stable")
        counts = np.bincount(self.node_depth, minlength=1)
        return np.split(order, np.cumsum(counts)[:-1])

    @cached_property
    def node_num_queries(self) -> Index:
        """[num_nodes] queries that end in each node itself."""
        return np.bincount(self.query_node + 1, minlength=self.num_nodes + 1)[1:]

    @cached_property
    def node_visible_len(self) -> IntArray:
        """[num_nodes] tokens of each node that the newest of its queries sees."""
        end = np.zeros(self.num_nodes + 1, dtype=np.int32)
        np.maximum.at(end, self.query_node, self.query_position + np.int32(1))
        seen = np.maximum(end[:-1] - self.node_start, 0)
        # A node with a child that has queries is seen whole.
        _, first, last = self.subtree
        return np.where(last - first > self.node_num_queries, self.node_len, seen)

    @cached_property
    def subtree(self) -> tuple[Index, Index, Index]:
        """Queries below each node, as ranges of one order.

        Returns:
            order [num seeing queries], begin [num_nodes], end [num_nodes]: node v is seen by the
            queries `order[begin[v] : end[v]]`; those that end in v itself come first.
        """
        own = self.node_num_queries
        total = sum_over_subtree(own, self._jumps)
        begin = first_below(self.node_parent, own, total, self._jumps)
        seeing = (self.query_node >= 0).nonzero()[0]
        by_node = argsort_small(begin[self.query_node[seeing]], self.num_queries)
        return seeing[by_node], begin, begin + total

    @cached_property
    def _jumps(self) -> list[Index]:
        return ancestor_jumps(self.node_parent)
