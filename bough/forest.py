"""The batch's prefix forest, a snapshot in flat arrays. No schedule and no storage here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int32]


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

    def __post_init__(self) -> None:
        _expect(self.page_size >= 1, "page_size", "at least 1", self.page_size)
        for name in ("start", "len", "first_slot", "page_start", "num_pages"):
            values = getattr(self, f"node_{name}")
            _expect(len(values) == self.num_nodes, f"node_{name}", "one a node", len(values))
        has_parent = self.node_parent >= 0
        ends = np.where(has_parent, (self.node_start + self.node_len)[self.node_parent], 0)
        _expect_all(
            self.node_start == ends, "node_start", "its parent's end, 0 for a root", self.node_start
        )
        _expect_all(self.node_len >= 0, "node_len", "at least 0", self.node_len)
        capacity = self.node_num_pages * self.page_size - self.node_first_slot
        _expect_all(
            self.node_len <= capacity, "node_len", "at most the slots of its pages", self.node_len
        )
        _expect(
            len(self.query_node) == len(self.query_position) == self.query_indptr[-1],
            "query_node and query_position",
            f"of length query_indptr[-1] = {self.query_indptr[-1]}",
            (len(self.query_node), len(self.query_position)),
        )
        _expect_all(self.query_node < self.num_nodes, "query_node", "a node", self.query_node)

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
        table, lens, query_lens = _check_page_table(page_table, seq_lens, page_size, query_lens)
        columns = -(-lens // page_size)
        for row in np.flatnonzero(columns < table.shape[1]):
            table[row, columns[row] :] = -1
        _check_page_ids(table, lens - query_lens, columns, page_size, window, num_pages)
        return _forest_from_table(table, lens, query_lens, columns, page_size)

    @classmethod
    def from_nodes(
        cls,
        *,
        page_size: int,
        node_parent: Sequence[int],
        node_len: Sequence[int],
        node_pages: Sequence[Sequence[int]],
        query_node: Sequence[int],
        query_position: Sequence[int] | None = None,
        query_indptr: Sequence[int] | None = None,
        node_first_slot: Sequence[int] | None = None,
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
        parent, length = _int_array(node_parent), _int_array(node_len)
        is_ordered = parent < np.arange(len(parent))
        _expect_all(is_ordered, "node_parent", "smaller than the node's own index", parent)
        start = np.zeros_like(length)
        for node, above in enumerate(parent):
            if above >= 0:
                start[node] = start[above] + length[above]
        counts = _int_array([len(pages) for pages in node_pages])
        indices = _int_array([page for pages in node_pages for page in pages])
        _expect_all(indices >= 0, "node_pages", "at least 0", indices)
        queries = _int_array(query_node)
        last = np.where(queries >= 0, (start + length - 1)[queries], -1).astype(np.int32)
        return cls(
            page_size=page_size,
            node_parent=parent,
            node_start=start,
            node_len=length,
            node_first_slot=_int_array(node_first_slot or [0] * len(parent)),
            node_page_start=np.cumsum(counts, dtype=np.int64) - counts,
            node_num_pages=counts,
            page_indices=indices,
            query_indptr=_int_array(
                range(len(queries) + 1) if query_indptr is None else query_indptr
            ),
            query_node=queries,
            query_position=last if query_position is None else _int_array(query_position),
            max_page=int(indices.max(initial=-1)),
        )

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
        """[num_nodes] 0 for a root; found by pointer jumping, whatever the order of nodes."""
        depth = (self.node_parent >= 0).astype(np.int32)
        ancestor = self.node_parent.copy()
        for _ in range(self.num_nodes.bit_length() + 1):
            is_below = ancestor >= 0
            if not is_below.any():
                return depth
            depth = depth + np.where(is_below, depth[ancestor], 0)
            ancestor = np.where(is_below, ancestor[ancestor], -1)
        raise ValueError(f"node_parent must be free of cycles, got {self.node_parent}")

    @cached_property
    def levels(self) -> list[npt.NDArray[np.intp]]:
        """Nodes by depth, roots first."""
        order = np.argsort(self.node_depth, kind="stable")
        counts = np.bincount(self.node_depth, minlength=1)
        return np.split(order, np.cumsum(counts)[:-1])

    @cached_property
    def node_num_queries(self) -> IntArray:
        """[num_nodes] queries that end in each node itself."""
        ending = self.query_node[self.query_node >= 0]
        return np.bincount(ending, minlength=self.num_nodes).astype(np.int32)

    @cached_property
    def subtree(self) -> tuple[IntArray, IntArray, IntArray]:
        """Queries below each node, as ranges of one order.

        Returns:
            order [num seeing queries], begin [num_nodes], end [num_nodes]: node v is seen by the
            queries `order[begin[v] : end[v]]`; those that end in v itself come first.
        """
        own = self.node_num_queries
        total = own.copy()
        for level in reversed(self.levels[1:]):
            np.add.at(total, self.node_parent[level], total[level])
        begin = np.zeros_like(total)
        for depth, level in enumerate(self.levels):
            above = self.node_parent[level]
            by_parent = np.argsort(above, kind="stable")
            level, above = level[by_parent], above[by_parent]
            before = np.cumsum(total[level]) - total[level]
            if depth:
                is_first = np.r_[True, above[1:] != above[:-1]]
                runs = np.cumsum(is_first) - 1
                before = before - before[is_first][runs] + begin[above] + own[above]
            begin[level] = before
        seeing = np.flatnonzero(self.query_node >= 0)
        by_node = np.argsort(begin[self.query_node[seeing]], kind="stable")
        return seeing[by_node].astype(np.int32), begin, begin + total


def _check_page_table(
    page_table: Any, seq_lens: Any, page_size: int, query_lens: Any
) -> tuple[IntArray, IntArray, IntArray]:
    _expect(page_size >= 1, "page_size", "at least 1", page_size)
    source = _host_array(page_table)
    _expect(source.ndim == 2, "page_table", "[num_requests, max_pages]", source.shape)
    is_whole = np.issubdtype(source.dtype, np.integer)
    _expect(is_whole, "page_table", "of an integer dtype", source.dtype)
    lens = _int_array(seq_lens)
    _expect(lens.shape == source.shape[:1], "seq_lens", f"[{len(source)}]", lens.shape)
    most = source.shape[1] * page_size
    _expect_all((lens >= 0) & (lens <= most), "seq_lens", f"from 0 to {most}", lens)
    counts = np.ones_like(lens) if query_lens is None else _int_array(query_lens)
    _expect(counts.shape == lens.shape, "query_lens", f"[{len(lens)}]", counts.shape)
    is_possible = (counts >= 0) & ((counts <= lens) | (lens == 0))
    _expect_all(is_possible, "query_lens", "from 0 to its seq_lens", counts)
    return np.array(source, dtype=np.int32, order="C"), lens, counts


def _check_page_ids(
    table: IntArray,
    first_query: IntArray,
    columns: IntArray,
    page_size: int,
    window: int | None,
    num_pages: int | None,
) -> None:
    """Refuse page ids out of range in the columns that some query sees."""
    is_bad = table < 0
    if num_pages is not None:
        is_bad |= table >= num_pages
    num_padding = int((table.shape[1] - columns).sum(dtype=np.int64))
    if np.count_nonzero(is_bad) == num_padding:
        return
    first_seen = np.zeros_like(columns)
    if window is not None:
        first_seen = np.maximum(0, first_query - window + 1) // page_size
    column = np.arange(table.shape[1])
    is_bad &= (column >= first_seen[:, None]) & (column < columns[:, None])
    if is_bad.any():
        row, at = np.argwhere(is_bad)[0]
        expected = "at least 0" if num_pages is None else f"from 0 to {num_pages - 1}"
        _expect(False, f"page_table[{row}, {at}]", expected, table[row, at])
    # Ignored columns keep whatever they held for the comparison; a plan never reads them.


def _forest_from_table(
    table: IntArray, lens: IntArray, query_lens: IntArray, columns: IntArray, page_size: int
) -> Forest:
    rows = np.flatnonzero(columns)
    rows = rows[_sorted_rows(table[rows] if len(rows) < len(table) else table)]
    shared = _shared_columns(table, rows, columns)
    parent, begin, end, row_of_node, node_of_row = _trie(rows, columns, shared, len(table))

    node_len = np.zeros(len(parent), dtype=np.int32)
    seen = lens[rows]
    np.maximum.at(node_len, node_of_row[rows], seen)
    node_len = np.minimum(node_len, end * page_size)
    node_len[parent[parent >= 0]] = (end * page_size)[parent[parent >= 0]]
    node_len -= begin * page_size

    query_indptr = np.zeros(len(lens) + 1, dtype=np.int32)
    np.cumsum(query_lens, out=query_indptr[1:])
    request = np.repeat(np.arange(len(lens)), query_lens)
    back = query_indptr[1:][request] - np.arange(query_indptr[-1])
    return Forest(
        page_size=page_size,
        node_parent=parent,
        node_start=begin * page_size,
        node_len=node_len,
        node_first_slot=np.zeros_like(begin),
        node_page_start=row_of_node.astype(np.int64) * table.shape[1] + begin,
        node_num_pages=end - begin,
        page_indices=table.reshape(-1),
        query_indptr=query_indptr,
        query_node=node_of_row[request],
        query_position=np.maximum(lens[request] - back, -1).astype(np.int32),
        max_page=int(table.max(initial=-1)),
    )


def _sorted_rows(table: IntArray) -> npt.NDArray[np.intp]:
    """Order rows so that equal prefixes stand together; bytewise order serves as well as any."""
    if table.shape[1] == 0 or len(table) < 2:
        return np.arange(len(table))
    as_bytes = table.view(np.dtype((np.void, table.shape[1] * table.itemsize)))
    return np.argsort(as_bytes[:, 0], kind="stable")


def _shared_columns(table: IntArray, rows: npt.NDArray[np.intp], columns: IntArray) -> IntArray:
    """[len(rows)] columns that each sorted row shares with the one before it."""
    shared = np.zeros(len(rows), dtype=np.int32)
    block = max(1, (1 << 18) // max(1, table.shape[1]))  # pairs of rows that fit the cache
    for at in range(1, len(rows), block):
        upper, lower = rows[at - 1 : at + block - 1], rows[at : at + block]
        differs = table[upper[: len(lower)]] != table[lower]
        first = differs.argmax(axis=1)
        is_equal = ~differs[np.arange(len(lower)), first]
        most = np.minimum(columns[upper[: len(lower)]], columns[lower])
        shared[at : at + block] = np.where(is_equal, most, np.minimum(first, most))
    return shared


def _trie(
    rows: npt.NDArray[np.intp], columns: IntArray, shared: IntArray, num_requests: int
) -> tuple[IntArray, IntArray, IntArray, IntArray, IntArray]:
    """Cut sorted rows into nodes where they part.

    Returns:
        parent, begin column, end column and a row of each node; the last node of each request.
    """
    parent: list[int] = []
    begin: list[int] = []
    end: list[int] = []
    row_of_node: list[int] = []
    node_of_row = np.full(num_requests, -1, dtype=np.int32)
    path: list[int] = []

    def add(above: int, first: int, last: int, row: int) -> int:
        parent.append(above)
        begin.append(first)
        end.append(last)
        row_of_node.append(row)
        return len(parent) - 1

    for row, width, common in zip(
        rows.tolist(), columns[rows].tolist(), shared.tolist(), strict=True
    ):
        while path and begin[path[-1]] >= common:
            path.pop()
        if path and end[path[-1]] > common:
            lower = path.pop()
            upper = add(parent[lower], begin[lower], common, row_of_node[lower])
            parent[lower], begin[lower] = upper, common
            path.append(upper)
        if width > common:
            path.append(add(path[-1] if path else -1, common, width, row))
        node_of_row[row] = path[-1]
    return (*(_int_array(values) for values in (parent, begin, end, row_of_node)), node_of_row)  # type: ignore[return-value]


def _host_array(values: Any) -> npt.NDArray[Any]:
    """Read a numpy array, a torch tensor of any device, or nested sequences."""
    return np.asarray(values.cpu() if hasattr(values, "cpu") else values)


def _int_array(values: Any) -> IntArray:
    return np.array(_host_array(values), dtype=np.int32)


def _expect(is_met: bool, name: str, expectation: str, value: object) -> None:
    if not is_met:
        raise ValueError(f"{name} must be {expectation}, got {value}")


def _expect_all(is_met: Any, name: str, expectation: str, values: Any) -> None:
    if not np.all(is_met):
        at = int(np.argmin(is_met))
        _expect(False, f"{name}[{at}]", expectation, values[at])
