"""FlexAttention: torch's compiled attention, with the whole forest packed behind one block mask."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from bough.bench.contestant import Step
from bough.bench.problem import Problem, contiguous_kv
from bough.forest import Forest

# Tokens and queries of one block of the mask; the library's own choice.
_BLOCK = 128
# Its kernel for few queries takes all rows of a stored head as one block, up to this many.
_MOST_ROWS = 128


class FlexAttention:
    """One compiled call over all tokens of the forest, each stored once; laid out beforehand."""

    name = "flex"

    def refusal(self, problem: Problem) -> str | None:
        """Refuse CPUs, where it is measured by nobody and compiles for long, and draft trees."""
        if problem.forest.query_hidden is not None:
            return "packed without a mask for the trees of drafts"
        return None if problem.q.device.type == "cuda" else "measured compiled, on GPUs only"

    def prepare(self, problem: Problem) -> Step:
        """Pack the forest, write its mask and compile for this problem."""
        if problem.q.device.type == "cuda":
            # Compiled for each problem: code of an earlier shape must not count against a limit.
            torch._dynamo.reset()
            return flex_step(problem, torch.compile(flex_attention, dynamic=False, fullgraph=True))
        return flex_step(problem, flex_attention)


class PackedForest(NamedTuple):
    """The order in which queries and tokens are packed, and who sees what.

    Attributes:
        order: [num_queries] queries so that those below a node stand together.
        slots: [num_tokens] slot of each token, node by node.
        token_begin: [num_tokens] first place in `order` that sees a token's node.
        token_end: [num_tokens] one past the last.
        token_position: [num_tokens] position.
        query_position: [num_queries] position of the query at each place in `order`.
    """

    order: npt.NDArray[np.integer]
    slots: npt.NDArray[np.int64]
    token_begin: npt.NDArray[np.int32]
    token_end: npt.NDArray[np.int32]
    token_position: npt.NDArray[np.int32]
    query_position: npt.NDArray[np.integer]


def pack_forest(forest: Forest) -> PackedForest:
    """Lay a forest out as one run of tokens, roots first."""
    order, begin, end = forest.subtree
    node = np.repeat(np.arange(forest.num_nodes), forest.node_len)
    first = np.cumsum(forest.node_len) - forest.node_len
    within = np.arange(len(node)) - first[node]
    at = within + forest.node_first_slot[node]
    page = forest.page_indices[forest.node_page_start[node] + at // forest.page_size]
    return PackedForest(
        order=order,
        slots=page.astype(np.int64) * forest.page_size + at % forest.page_size,
        token_begin=begin[node].astype(np.int32),
        token_end=end[node].astype(np.int32),
        token_position=(forest.node_start[node] + within).astype(np.int32),
        query_position=forest.query_position[order],
    )


def block_mask(packed: PackedForest, device: torch.device) -> BlockMask:
    """Say which blocks of tokens each block of queries sees: in part, and as a whole.

    Found from the nodes' ranges: the library's own way evaluates every (query, token) pair.
    """
    partial, full = block_kinds(packed)
    token_begin, token_end, token_position, query_position = (
        torch.from_numpy(array).to(device)
        for array in (
            packed.token_begin,
            packed.token_end,
            packed.token_position,
            packed.query_position,
        )
    )

    def sees(
        batch: torch.Tensor, head: torch.Tensor, query: torch.Tensor, token: torch.Tensor
    ) -> torch.Tensor:
        is_below = (token_begin[token] <= query) & (query < token_end[token])
        return is_below & (token_position[token] <= query_position[query])

    (num_partial, partial_indices), (num_full, full_indices) = (
        _block_lists(kind, device) for kind in (partial, full)
    )
    return BlockMask.from_kv_blocks(
        num_partial,
        partial_indices,
        num_full,
        full_indices,
        BLOCK_SIZE=_BLOCK,
        mask_mod=sees,
        seq_lengths=(len(packed.order), len(packed.slots)),
    )


def block_kinds(
    packed: PackedForest,
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """[num_query_blocks, num_token_blocks] whether a block is seen in part, and as a whole."""
    num_queries, num_tokens = len(packed.order), len(packed.slots)
    firsts = np.arange(0, num_tokens, _BLOCK)
    partial, full = [], []
    for begin in range(0, num_queries, _BLOCK):
        end = min(begin + _BLOCK, num_queries)
        position = packed.query_position[begin:end]
        touches = (packed.token_begin < end) & (packed.token_end > begin)
        touches &= packed.token_position <= position.max()
        covers = (packed.token_begin <= begin) & (packed.token_end >= end)
        covers &= packed.token_position <= position.min()
        is_touched = np.logical_or.reduceat(touches, firsts)
        is_covered = np.logical_and.reduceat(covers, firsts)
        # A block that reaches past the tokens is left to the mask.
        is_covered[-1] &= num_tokens % _BLOCK == 0
        partial.append(is_touched & ~is_covered)
        full.append(is_covered)
    return np.stack(partial), np.stack(full)


def _block_lists(
    is_listed: npt.NDArray[np.bool_], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Counts [1, 1, num_query_blocks] and indices [.., num_token_blocks], listed ones first."""
    counts = is_listed.sum(axis=1, dtype=np.int32)
    indices = np.argsort(~is_listed, axis=1, kind="stable").astype(np.int32)
    return (
        torch.from_numpy(counts)[None, None].to(device),
        torch.from_numpy(indices)[None, None].to(device),
    )


def flex_step(problem: Problem, attention: Any) -> Step:
    """Lay a problem out and write its mask.

    Args:
        problem: the problem.
        attention: `flex_attention`, compiled or not.
    """
    packed = pack_forest(problem.forest)
    device = problem.q.device
    order = torch.from_numpy(packed.order).long().to(device)
    key, value = contiguous_kv(problem, packed.slots)
    mask = block_mask(packed, device)
    q = problem.q[order].transpose(0, 1).contiguous()[None]
    key, value, scale = key[None], value[None], problem.spec.scale
    is_tall = problem.forest.num_queries * problem.spec.group_size > _MOST_ROWS
    options = {"FORCE_USE_FLEX_ATTENTION": is_tall}

    def run() -> torch.Tensor:
        return attention(
            *(q, key, value),
            block_mask=mask,
            scale=scale,
            enable_gqa=True,
            kernel_options=options,
        )

    def output(out: torch.Tensor) -> torch.Tensor:
        result = torch.empty_like(out[0].transpose(0, 1))
        result[order] = out[0].transpose(0, 1)
        return result

    return Step(run, output)
