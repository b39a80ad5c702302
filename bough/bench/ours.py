"""Ours: `attend`, as one layer of many sees it, and the same with sharing switched off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from bough.attend import attend
from bough.bench.contestant import Step
from bough.bench.paged import page_table_of
from bough.bench.problem import Problem
from bough.forest import Forest
from bough.kv import KV, QuantizedKV
from bough.plan import make_plan
from bough.workloads import beam_tree


class Bough:
    """`attend` over a plan that is made outside the timing."""

    name = "bough"

    def refusal(self, problem: Problem) -> str | None:
        """Take part everywhere: a problem that no backend serves is an error."""
        return None

    def prepare(self, problem: Problem) -> Step:
        """Make the plan."""
        return _step(problem, problem.forest, problem.kv)


class BoughApart:
    """The same kernels on the same pages, where every request is planned as if it were alone."""

    name = "apart"

    def refusal(self, problem: Problem) -> str | None:
        """Refuse where a request's path is no run of whole pages."""
        if page_table_of(problem.forest) is None:
            return "an inner node ends inside a page, so a request alone is no run of pages"
        return None

    def prepare(self, problem: Problem) -> Step:
        """Make the plan of a forest of single nodes."""
        return _step(problem, forest_apart(problem.forest), problem.kv)


class BoughPlain:
    """The same on the same forest, on KV of as many bits as the queries."""

    name = "plain"

    def refusal(self, problem: Problem) -> str | None:
        """Refuse where ours does the same."""
        return None if isinstance(problem.kv, QuantizedKV) else "measured beside fp8 KV only"

    def prepare(self, problem: Problem) -> Step:
        """Make the plan, for tokens of other bytes."""
        return _step(problem, problem.forest, problem.plain_kv)


def forest_apart(forest: Forest) -> Forest:
    """Describe the same requests over the same pages as if none were shared.

    Raises:
        ValueError: an inner node ends inside a page.
    """
    described = page_table_of(forest)
    if described is None:
        raise ValueError(f"forest must have inner nodes of whole pages, got {forest.node_len}")
    table, seq_lens = described
    requests = range(forest.num_requests)
    apart = Forest.from_nodes(
        page_size=forest.page_size,
        node_parent=[-1 for _ in requests],
        node_len=seq_lens,
        node_pages=[
            pages[: -(-length // forest.page_size)]
            for pages, length in zip(table, seq_lens, strict=True)
        ],
        query_node=np.repeat(requests, np.diff(forest.query_indptr)),
        query_position=forest.query_position,
        query_indptr=forest.query_indptr,
    )
    return replace(apart, query_hidden=forest.query_hidden)


class BoughNodes:
    """The same kernels on the same slots, where every draft is a node of the forest."""

    name = "draft-nodes"

    def refusal(self, problem: Problem) -> str | None:
        """Refuse what has no drafts."""
        return None if problem.case.has_drafts else "has no draft trees"

    def prepare(self, problem: Problem) -> Step:
        """Make the plan of a forest whose nodes say who sees whom."""
        parents = beam_tree(problem.case.query_len - 1)
        return _step(problem, forest_of_draft_nodes(problem.forest, parents), problem.kv)


def forest_of_draft_nodes(forest: Forest, parents: Sequence[int]) -> Forest:
    """Describe draft trees at the ends of leaves by a node for each draft, in the slots they have.

    Args:
        forest: requests of the same number of queries, all of which end in leaves of their own.
        parents: every request's tree.
    """
    num_drafts, size = len(parents), forest.page_size
    query_node = forest.query_node.reshape(-1, num_drafts + 1)
    leaf = query_node[:, 0]
    length = forest.node_len.copy()
    length[leaf] -= num_drafts
    slot = (forest.node_first_slot + length)[leaf][:, None] + np.arange(num_drafts)
    page = forest.page_indices[forest.node_page_start[leaf][:, None] + slot // size]
    first = forest.num_nodes + np.arange(len(leaf)) * num_drafts
    above = np.array(parents)
    parent = np.where(above < 0, leaf[:, None], first[:, None] + above)
    start, pages = forest.node_page_start, forest.node_num_pages
    nodes = [forest.page_indices[low : low + num] for low, num in zip(start, pages, strict=True)]
    own = first[:, None] + np.arange(num_drafts)
    return Forest.from_nodes(
        page_size=size,
        node_parent=np.concatenate((forest.node_parent, parent.ravel())),
        node_len=np.concatenate((length, np.ones(own.size, dtype=np.int32))),
        node_pages=[*nodes, *page.reshape(-1, 1)],
        node_first_slot=np.concatenate((forest.node_first_slot, (slot % size).ravel())),
        query_node=np.concatenate((leaf[:, None], own), axis=1).ravel(),
        query_indptr=forest.query_indptr,
    )


def _step(problem: Problem, forest: Forest, kv: KV) -> Step:
    setup, is_fp8 = problem.setup, isinstance(kv, QuantizedKV)
    itemsize = 1 if is_fp8 else setup.dtype.itemsize
    plan = make_plan(forest, setup.spec, setup.device, itemsize=itemsize)
    return Step(lambda: attend(problem.q, kv, plan), lambda result: result[0], is_fp8)
