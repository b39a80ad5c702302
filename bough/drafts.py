"""Draft trees: who sees whom among tokens that were guessed after a request's newest one.

Drafts are stored one after the other, each behind the draft or the newest token that it continues.
What a query does not see of the tokens just before it is one 64-bit word: bit i stands for the
token i before it. All older tokens are seen, and 0 hides none.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from bough.expect import expect, expect_all
from bough.page_trie import IntArray, int_array

Words = npt.NDArray[np.int64]

# Drafts of one tree: the last must have a bit for the first.
MOST_DRAFTS = 64


def hidden_words(parents: Sequence[npt.ArrayLike]) -> Words:
    """Work out what each draft does not see: those before it that are not its ancestors.

    Args:
        parents: for each tree [num_drafts] the draft that each continues, -1 for the newest token.

    Returns:
        [total drafts], tree after tree.

    Raises:
        ValueError: a tree has more than 64 drafts, or a draft stands before its parent.
    """
    trees = [int_array(parent) for parent in parents]
    counts = np.array([len(tree) for tree in trees], dtype=np.intp)
    most = int(counts.max(initial=0))
    expect(most <= MOST_DRAFTS, "drafts", f"at most {MOST_DRAFTS} of a request", most)
    # Short trees are filled up with a chain that nobody reads.
    table = np.tile(np.arange(-1, most - 1, dtype=np.intp), (len(trees), 1))
    for row, tree in zip(table, trees, strict=True):
        is_met = (tree >= -1) & (tree < np.arange(len(tree)))
        expect_all(is_met, "parents", "an earlier draft, or -1", tree)
        row[: len(tree)] = tree
    every_tree, one = np.arange(len(trees)), np.uint64(1)
    words = np.zeros((len(trees), most + 1), dtype=np.uint64)
    for draft in range(most):
        parent = table[:, draft]
        back = (draft - parent).astype(np.uint64)
        between = (one << back) - np.uint64(2)
        words[:, draft + 1] = words[every_tree, parent + 1] << back | between
    is_draft = np.arange(most) < counts[:, None]
    return words[:, 1:][is_draft].view(np.int64)


def newest_hidden_words(parents: Sequence[npt.ArrayLike], query_indptr: IntArray) -> Words:
    """Work out what all queries do not see, where the newest of each request are drafts.

    Args:
        parents: for each request as in `hidden_words`.
        query_indptr: [num_requests + 1] queries of each request.

    Returns:
        [num_queries].

    Raises:
        ValueError: a request has fewer queries than drafts, or as in `hidden_words`.
    """
    num_queries = np.diff(query_indptr)
    expect(len(parents) == len(num_queries), "parents", "one a request", len(parents))
    counts = np.array([len(int_array(tree)) for tree in parents], dtype=np.intp)
    expect_all(counts <= num_queries, "drafts", "at most the queries of their request", counts)
    first = query_indptr[1:] - counts.cumsum()
    words = np.zeros(query_indptr[-1], dtype=np.int64)
    words[np.arange(counts.sum()) + first.repeat(counts)] = hidden_words(parents)
    return words


def num_hidden(words: Words) -> IntArray:
    """Count the tokens before each query that it does not see."""
    bits = np.unpackbits(np.ascontiguousarray(words).view(np.uint8))
    return bits.reshape(-1, 64).sum(axis=1, dtype=np.int32)


def hides(words: Words, distance: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
    """Say whether tokens so far before queries are hidden from them; the arguments broadcast."""
    bit = words >> distance.clip(0, MOST_DRAFTS - 1).astype(np.int64) & 1
    return (bit == 1) & (distance >= 0) & (distance < MOST_DRAFTS)
