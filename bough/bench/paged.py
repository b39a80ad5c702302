"""What peers on paged KV read: page tables request by request, or level by level."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from bough.bench.problem import Problem
from bough.forest import Forest

# Of peers whose only mask is by position.
NO_TREES = "has no mask for the trees of drafts"


class RequestTables(NamedTuple):
    """Each request's path on its own; shared pages are named once for each request.

    Attributes:
        pages: [num_requests, max_pages] int32.
        lengths: [num_requests] int32 KV tokens.
    """

    pages: torch.Tensor
    lengths: torch.Tensor


class Level(NamedTuple):
    """The nodes of one depth, as a cascade reads them.

    Attributes:
        query_indptr: [n + 1] int32, node i is read by queries `query_indptr[i] : [i + 1]`.
        page_indptr: [n + 1] int32, its pages in `page_indices`.
        page_indices: [total] int32.
        last_page_len: [n] int32 tokens in its last page.
    """

    query_indptr: torch.Tensor
    page_indptr: torch.Tensor
    page_indices: torch.Tensor
    last_page_len: torch.Tensor


def refuse_paged(problem: Problem) -> str | None:
    """Say what a peer on page tables cannot read; None where it can."""
    if problem.spec.tied or problem.spec.qk_dim != problem.spec.v_dim:
        return "measured with untied keys and values of one size only"
    if problem.q.dtype not in (torch.float16, torch.bfloat16):
        return f"takes float16 and bfloat16, not {problem.setup.dtype}"
    if problem.forest.query_hidden is not None:
        return NO_TREES
    if page_table_of(problem.forest) is None:
        return "an inner node ends inside a page, which a page table cannot say"
    return None


def request_tables(forest: Forest) -> RequestTables:
    """Write a forest as page tables, request by request.

    Raises:
        ValueError: an inner node ends inside a page.
    """
    described = page_table_of(forest)
    if described is None:
        raise ValueError(f"forest must have inner nodes of whole pages, got {forest.node_len}")
    return RequestTables(*(torch.from_numpy(array) for array in described))


def page_table_of(forest: Forest) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]] | None:
    """Write a forest as a page table, each request up to its last query.

    Returns:
        page_table [num_requests, max_pages] and seq_lens [num_requests]; None where a node that
        has children does not fill its last page.
    """
    inner = forest.node_parent[forest.node_parent >= 0]
    if (forest.node_len[inner] % forest.page_size).any():
        return None
    last = forest.query_indptr[1:] - 1
    seq_lens = (forest.query_position[last] + 1).astype(np.int32)
    pages = -(-forest.node_len // forest.page_size)
    table = np.zeros((forest.num_requests, -(-seq_lens.max() // forest.page_size)), dtype=np.int32)
    for row, node in zip(table, forest.query_node[last].tolist(), strict=True):
        while node >= 0:
            begin = forest.node_start[node] // forest.page_size
            source = int(forest.node_page_start[node])
            row[begin : begin + pages[node]] = forest.page_indices[source : source + pages[node]]
            node = int(forest.node_parent[node])
    return table, seq_lens


def cascade_levels(forest: Forest) -> list[Level] | None:
    """Write a forest level by level, roots first.

    Returns:
        One level a depth; None where leaves lie at several depths, a query is not the newest
        token of its leaf, or queries do not stand in the order of the nodes.
    """
    order, begin, end = forest.subtree
    levels = []
    for nodes in forest.levels:
        nodes = nodes[np.argsort(begin[nodes], kind="stable")]
        indptr = np.append(begin[nodes], end[nodes[-1]])
        is_whole = np.array_equal(indptr[1:], end[nodes]) and indptr[0] == 0
        if not is_whole or indptr[-1] != forest.num_queries:
            return None
        pages = [
            forest.page_indices[start : start + -(-length // forest.page_size)]
            for start, length in zip(
                forest.node_page_start[nodes], forest.node_len[nodes], strict=True
            )
        ]
        counts = np.cumsum([0, *(len(of_node) for of_node in pages)])
        last = (forest.node_len[nodes] - 1) % forest.page_size + 1
        arrays = (indptr, counts, np.concatenate(pages), last)
        levels.append(Level(*(torch.from_numpy(array.astype(np.int32)) for array in arrays)))
    is_newest = (
        forest.query_position == (forest.node_start + forest.node_len)[forest.query_node] - 1
    )
    is_in_order = np.array_equal(order, np.arange(forest.num_queries))
    return levels if is_in_order and is_newest.all() else None
