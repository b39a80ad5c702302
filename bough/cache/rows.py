"""The locked nodes of a radix tree as the flat arrays of a `Forest`, kept up to date by changes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from bough.cache.node import QuerySpan, RadixNode
from bough.forest import Forest

PARENT, START, LENGTH, FIRST_SLOT, NUM_PAGES = range(5)
DEAD_ROW = ((-1,), (0,), (0,), (0,), (0,))
SLACK_PAGES = 8  # cells that an open leaf gets before it has pages


class NodeRows:
    """One row for each locked node, and one buffer for the pages of all rows.

    A row owns a region of the buffer, with slack where the node is open. Regions are only ever
    appended to: a cell that a row names is never written again, so a `Forest` shares the buffer
    and stays as it was made. A node that outgrows its region moves to one twice as large; when the
    buffer is full, the regions of live rows are gathered in a new one. The row of a node that is
    no longer locked is dead (parent -1, no tokens, no pages) until it is used again.

    Args:
        page_size: slots per page.
    """

    def __init__(self, page_size: int) -> None:
        self._page_size = page_size
        self._num_rows = 0
        self._dead_rows: list[int] = []
        self._table = np.empty((5, 64), dtype=np.int32)
        self._page_start = np.empty(64, dtype=np.int64)
        self._capacity: list[int] = []  # cells of each row's region
        self._buffer = np.zeros(1024, dtype=np.int32)
        self._buffer_end = 0
        self._max_page = -1

    def add(self, node: RadixNode) -> None:
        """Give `node` a row; its parent has one, unless it is a root."""
        row = self._dead_rows.pop() if self._dead_rows else self._new_row()
        num_pages = len(node.pages)
        capacity = max(SLACK_PAGES, 2 * num_pages) if node.is_open else num_pages
        parent = -1 if node.parent is None else node.parent.row
        begin = self._new_region(capacity)
        self._buffer[begin : begin + num_pages] = node.pages
        self._max_page = max(self._max_page, max(node.pages, default=-1))
        self._page_start[row] = begin
        self._table[:, row] = (
            parent,
            node.start,
            len(node.tokens),
            node.first_slot,
            num_pages,
        )
        self._capacity[row] = capacity
        node.row = row

    def remove(self, node: RadixNode) -> None:
        """Let the row of `node` be dead; no row below it is left."""
        self._table[:, node.row : node.row + 1] = DEAD_ROW
        self._page_start[node.row] = 0
        self._capacity[node.row] = 0
        self._dead_rows.append(node.row)
        node.row = -1

    def split(self, upper: RadixNode, lower: RadixNode) -> None:
        """Give `upper` a row for the head of what was `lower`; both stay where they are stored."""
        row, below = self._dead_rows.pop() if self._dead_rows else self._new_row(), lower.row
        num_upper, num_lower = len(upper.pages), len(lower.pages)
        num_before = int(self._table[NUM_PAGES, below]) - num_lower
        above = int(self._table[PARENT, below])
        self._table[:, row] = (
            above,
            upper.start,
            len(upper.tokens),
            upper.first_slot,
            num_upper,
        )
        self._capacity[row] = num_upper
        self._page_start[row] = self._page_start[below]
        self._table[:NUM_PAGES, below] = (row, lower.start, len(lower.tokens), lower.first_slot)
        self._table[NUM_PAGES, below] = num_lower
        self._capacity[below] -= num_before
        self._page_start[below] += num_before
        upper.row = row

    def set_length(self, node: RadixNode) -> None:
        """Take over the number of tokens of a node that grew within its pages."""
        self._table[LENGTH, node.row] = len(node.tokens)

    def add_pages(self, node: RadixNode) -> None:
        """Take over the pages of a node that are new, and its first slot."""
        row, count = node.row, len(node.pages)
        at = self._table.item(NUM_PAGES, row)
        if count > self._capacity[row]:
            begin = self._new_region(2 * count)
            old = int(self._page_start[row])
            self._buffer[begin : begin + at] = self._buffer[old : old + at]
            self._page_start[row] = begin
            self._capacity[row] = 2 * count
        if at == 0:
            self._table[FIRST_SLOT, row] = node.first_slot
        begin = self._page_start.item(row)
        self._buffer[begin + at : begin + count] = node.pages[at:]
        self._table[NUM_PAGES, row] = count
        self._max_page = max(self._max_page, *node.pages[at:])

    def snapshot(self, spans: Sequence[QuerySpan]) -> Forest:
        """Copy the rows and share the buffer; `max_page` is the largest page ever named.

        Args:
            spans: one request each.

        Raises:
            ValueError: a span's node is not locked, or a query lies outside its node.
        """
        table = self._table[:, : self._num_rows].copy()
        node = np.array([span.node.row for span in spans], dtype=np.int32)
        first = np.array([span.position for span in spans], dtype=np.int32)
        counts = np.array([span.num_queries for span in spans], dtype=np.int32)
        _check_spans(spans, table, node, first, counts)
        query_indptr = np.zeros(len(spans) + 1, dtype=np.int32)
        np.cumsum(counts, out=query_indptr[1:])
        offsets = np.arange(query_indptr[-1], dtype=np.int32)
        forest = Forest(
            page_size=self._page_size,
            node_parent=table[PARENT],
            node_start=table[START],
            node_len=table[LENGTH],
            node_first_slot=table[FIRST_SLOT],
            node_page_start=self._page_start[: self._num_rows].copy(),
            node_num_pages=table[NUM_PAGES],
            page_indices=self._buffer[: self._buffer_end],
            query_indptr=query_indptr,
            query_node=np.repeat(node, counts),
            query_position=np.repeat(first - query_indptr[:-1], counts) + offsets,
            max_page=self._max_page,
        )
        if not any(span.draft_parents for span in spans):
            return forest
        return forest.with_drafts([span.draft_parents for span in spans])

    def _new_row(self) -> int:
        if self._num_rows == self._table.shape[1]:
            self._table = np.concatenate((self._table, self._table), axis=1)
            self._page_start = np.concatenate((self._page_start, self._page_start))
        self._num_rows += 1
        self._capacity.append(0)  # a row without a region until it is filled
        return self._num_rows - 1

    def _new_region(self, capacity: int) -> int:
        """Return where `capacity` cells begin that no row and no snapshot names."""
        if self._buffer_end + capacity > len(self._buffer):
            self._gather_regions(capacity)
        self._buffer_end += capacity
        return self._buffer_end - capacity

    def _gather_regions(self, extra: int) -> None:
        """Copy the regions of live rows to the head of a new buffer, at most half full."""
        capacity = np.array(self._capacity, dtype=np.int64)
        rows = np.flatnonzero(capacity)
        lengths = capacity[rows]
        ends = np.cumsum(lengths)
        begins = ends - lengths
        total = int(ends[-1]) if len(ends) else 0
        source = np.repeat(self._page_start[rows] - begins, lengths) + np.arange(total)
        buffer = np.zeros(max(1024, 2 * (total + extra)), dtype=np.int32)
        buffer[:total] = self._buffer[source]
        self._buffer, self._buffer_end = buffer, total
        self._page_start[rows] = begins


def _check_spans(
    spans: Sequence[QuerySpan],
    table: npt.NDArray[np.int32],
    node: npt.NDArray[np.int32],
    first: npt.NDArray[np.int32],
    counts: npt.NDArray[np.int32],
) -> None:
    is_valid = (node >= 0) & (counts >= 1)
    if is_valid.all():
        begin = table[START, node]
        is_valid = (first >= begin) & (first + counts <= begin + table[LENGTH, node])
    if not is_valid.all():
        at = int(np.argmin(is_valid))
        raise ValueError(
            f"spans[{at}] must be 1 or more queries inside a locked node, got {spans[at]}"
        )
