"""Where the rows of a page table part: what requests share, in whole pages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bough.expect import expect, expect_all

IntArray = npt.NDArray[np.int32]
# Entries of the page table that are compared at a time, to stay in the cache.
_BLOCK_ENTRIES = 1 << 18


@dataclass(frozen=True, kw_only=True, eq=False)
class PageTrie:
    """A page table cut into nodes of columns that the same requests share.

    Args:
        table: [num_requests, max_pages] the page table, -1 past a request's length.
        seq_lens: [num_requests] KV tokens of each request.
        query_lens: [num_requests] newest tokens that are queries.
        num_columns: [num_requests] pages of each request.
        parent: [num_nodes] -1 for a root.
        begin: [num_nodes] first column of each node.
        end: [num_nodes] one past its last column.
        row: [num_nodes] a request whose row holds the node's pages.
        node_of_row: [num_requests] the node in which each request ends, -1 for an empty one.
    """

    table: IntArray
    seq_lens: IntArray
    query_lens: IntArray
    num_columns: IntArray
    parent: IntArray
    begin: IntArray
    end: IntArray
    row: IntArray
    node_of_row: IntArray

    def check_page_ids(self, page_size: int, window: int | None, num_pages: int | None) -> None:
        """Refuse page ids out of range in the columns that some query sees.

        Columns that lie outside the window of every query of their request may hold anything: a
        plan never reads them.
        """
        table = self.table
        is_bad = table < 0
        if num_pages is not None:
            is_bad |= table >= num_pages
        num_padding = int((table.shape[1] - self.num_columns).sum(dtype=np.int64))
        if np.count_nonzero(is_bad) == num_padding:
            return
        first_seen = np.zeros_like(self.num_columns)
        if window is not None:
            oldest_query = self.seq_lens - self.query_lens
            first_seen = np.maximum(0, oldest_query - window + 1) // page_size
        column = np.arange(table.shape[1])
        is_bad &= (column >= first_seen[:, None]) & (column < self.num_columns[:, None])
        if is_bad.any():
            row, at = np.argwhere(is_bad)[0]
            expected = "at least 0" if num_pages is None else f"from 0 to {num_pages - 1}"
            expect(False, f"page_table[{row}, {at}]", expected, table[row, at])

    def node_len(self, page_size: int) -> IntArray:
        """[num_nodes] tokens of each node: to its end, or that of the longest request in it."""
        start, end = self.begin * np.int32(page_size), self.end * np.int32(page_size)
        stop = np.zeros_like(start)
        ends = self.node_of_row >= 0
        np.maximum.at(stop, self.node_of_row[ends], self.seq_lens[ends])
        stop = np.minimum(stop, end)
        inner = self.parent[self.parent >= 0]
        stop[inner] = end[inner]
        return stop - start

    def queries(self, page_size: int) -> tuple[IntArray, IntArray, IntArray]:
        """Place the newest tokens of each request.

        Returns:
            query_indptr [num_requests + 1], query_node and query_position [num_queries].
        """
        indptr = np.zeros(len(self.seq_lens) + 1, dtype=np.int32)
        np.cumsum(self.query_lens, out=indptr[1:])
        request = np.repeat(np.arange(len(self.seq_lens)), self.query_lens)
        back = indptr[1:][request] - np.arange(indptr[-1])
        position = np.maximum(self.seq_lens[request] - back, -1).astype(np.int32)
        start = np.append(self.begin * np.int32(page_size), np.int32(-1))
        node = self.node_of_row[request]
        while (is_above := position < start[node]).any():
            node = np.where(is_above, self.parent[node], node)
        return indptr, node, position


def read_page_table(
    page_table: Any, seq_lens: Any, page_size: int, query_lens: Any = None
) -> PageTrie:
    """Sort the rows, so that equal prefixes stand together, and cut them where they part.

    Args:
        page_table: [num_requests, max_pages] int, numpy, torch or nested lists.
        seq_lens: [num_requests] int.
        page_size: slots per page.
        query_lens: [num_requests] int; 1 each when None.

    Raises:
        ValueError: a shape or a length is out of range.
    """
    expect(page_size >= 1, "page_size", "at least 1", page_size)
    source = _host_array(page_table)
    expect(source.ndim == 2, "page_table", "[num_requests, max_pages]", source.shape)
    is_whole = np.issubdtype(source.dtype, np.integer)
    expect(is_whole, "page_table", "of an integer dtype", source.dtype)
    lens = int_array(seq_lens)
    expect(lens.shape == source.shape[:1], "seq_lens", f"[{len(source)}]", lens.shape)
    most = source.shape[1] * page_size
    expect_all((lens >= 0) & (lens <= most), "seq_lens", f"from 0 to {most}", lens)
    counts = np.ones_like(lens) if query_lens is None else int_array(query_lens)
    expect(counts.shape == lens.shape, "query_lens", f"[{len(lens)}]", counts.shape)
    is_possible = (counts >= 0) & ((counts <= lens) | (lens == 0))
    expect_all(is_possible, "query_lens", "from 0 to its seq_lens", counts)

    table = int_array(source)
    columns = -(-lens // np.int32(page_size))
    for row in np.flatnonzero(columns < table.shape[1]):
        table[row, columns[row] :] = -1
    rows = np.flatnonzero(columns)
    rows = rows[_sorted_rows(table[rows] if len(rows) < len(table) else table)]
    parent, begin, end, row_of_node, node_of_row = _cut(
        rows, columns, _shared_columns(table, rows, columns)
    )
    return PageTrie(
        table=table,
        seq_lens=lens,
        query_lens=counts,
        num_columns=columns,
        parent=parent,
        begin=begin,
        end=end,
        row=row_of_node,
        node_of_row=node_of_row,
    )


def int_array(values: Any) -> IntArray:
    """Copy a numpy array, a torch tensor of any device, or nested sequences.

    Numbers beyond int32 become its ends, so that they do not come back into range.
    """
    source, ends = _host_array(values), np.iinfo(np.int32)
    if not np.can_cast(source.dtype, np.int32):
        source = source.clip(ends.min, ends.max)
    return np.array(source, dtype=np.int32, order="C")


def _host_array(values: Any) -> npt.NDArray[Any]:
    return np.asarray(values.cpu() if hasattr(values, "cpu") else values)


def _sorted_rows(table: IntArray) -> npt.NDArray[np.intp]:
    """Order rows so that equal prefixes stand together; bytewise order serves as well as any."""
    if table.shape[1] == 0 or len(table) < 2:
        return np.arange(len(table))
    as_bytes = table.view(np.dtype((np.void, table.shape[1] * table.itemsize)))
    return np.argsort(as_bytes[:, 0], kind="stable")


def _shared_columns(table: IntArray, rows: npt.NDArray[np.intp], columns: IntArray) -> IntArray:
    """[len(rows)] columns that each sorted row shares with the one before it."""
    shared = np.zeros(len(rows), dtype=np.int32)
    block = max(1, _BLOCK_ENTRIES // max(1, table.shape[1]))
    for at in range(1, len(rows), block):
        lower = rows[at : at + block]
        upper = rows[at - 1 : at - 1 + len(lower)]
        differs = table[upper] != table[lower]
        first = differs.argmax(axis=1)
        is_equal = ~differs[np.arange(len(lower)), first]
        most = np.minimum(columns[upper], columns[lower])
        shared[at : at + block] = np.where(is_equal, most, np.minimum(first, most))
    return shared


def _cut(
    rows: npt.NDArray[np.intp], columns: IntArray, shared: IntArray
) -> tuple[IntArray, IntArray, IntArray, IntArray, IntArray]:
    """Grow the trie row by row along its rightmost path.

    Returns:
        parent, begin, end and row of each node, and the last node of each row; as in `PageTrie`.
    """
    parent: list[int] = []
    begin: list[int] = []
    end: list[int] = []
    row_of_node: list[int] = []
    node_of_row = np.full(len(columns), -1, dtype=np.int32)
    path: list[int] = []

    def add(above: int, first: int, last: int, row: int) -> int:
        parent.append(above)
        begin.append(first)
        end.append(last)
        row_of_node.append(row)
        return len(parent) - 1

    widths = columns[rows].tolist()
    for row, width, common in zip(rows.tolist(), widths, shared.tolist(), strict=True):
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
    return int_array(parent), int_array(begin), int_array(end), int_array(row_of_node), node_of_row
