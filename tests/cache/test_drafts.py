"""Drafts in an open leaf: a path of them is kept, in pages that stay its own."""

from __future__ import annotations

import pytest
import torch

from bough.cache import KVPool, QuerySpan, RadixTree
from bough.spec import AttentionSpec
from tests.cache.oracle import compute, make_tree, slots


@pytest.mark.parametrize("page_size", [1, 4])
@pytest.mark.parametrize("spec", [AttentionSpec.gqa(4, 2, 8), AttentionSpec.mla(2, 16, 8, 8)])
def test_kept_drafts_have_their_kv_behind_one_another(spec: AttentionSpec, page_size: int) -> None:
    pool = KVPool(spec, num_layers=2, num_pages=40, page_size=page_size)
    tree = RadixTree(pool)
    leaf = tree.fork(compute(tree.insert([1, 2, 3, 4, 5])))
    tree.append(leaf, 6)
    tree.append(leaf, *range(10, 20))
    planes = [
        plane
        for kv in (pool.layer(0), pool.layer(1))
        for plane in (kv if isinstance(kv, tuple) else (kv,))
    ]
    for at, (page, slot) in enumerate(slots(compute(leaf), page_size)):
        for plane in planes:
            plane[page, slot] = leaf.tokens[at]
    pages = list(leaf.pages)
    pool.move(tree.keep(leaf, 10, [0, 3, 4, 9]))
    assert leaf.tokens == [6, 10, 13, 14, 19]
    assert leaf.pages == pages
    for token, (page, slot) in zip(leaf.tokens, slots(leaf, page_size), strict=True):
        for plane in planes:
            assert torch.equal(plane[page, slot], torch.full_like(plane[page, slot], token))
    tree.close(leaf)
    assert tree.match([1, 2, 3, 4, 5, 6, 10, 13, 14, 19, 20]).length == 10
    assert pool.num_pages - pool.num_free == -(-10 // page_size)


def test_a_path_that_lies_in_place_is_not_moved() -> None:
    _, tree = make_tree(20, 4)
    leaf = tree.fork(compute(tree.insert([1, 2])))
    tree.append(leaf, 3, 4, 5, 6, 7)
    assert tree.keep(compute(leaf), 4, [0, 1, 2]) == []
    assert leaf.tokens == [3, 4, 5, 6]


def test_only_computed_drafts_behind_a_token_of_the_leaf_are_kept() -> None:
    _, tree = make_tree(20, 4)
    leaf = tree.fork(compute(tree.insert([1, 2])))
    tree.append(leaf, 3, 4, 5)
    with pytest.raises(ValueError, match="leaf must be open and computed"):
        tree.keep(leaf, 2, [])
    with pytest.raises(ValueError, match="num_newest must be below 3, got 3"):
        tree.keep(compute(leaf), 3, [0])


def test_a_snapshot_tells_drafts_whom_they_see() -> None:
    _, tree = make_tree(20, 4)
    leaf = tree.fork(compute(tree.insert([1, 2])))
    tree.append(leaf, 3, 4, 5, 6)
    forest = tree.forest([QuerySpan(leaf, 2, 4, (-1, -1, 0)), QuerySpan(leaf, 5, 1)])
    assert forest.rotary_position.tolist() == [2, 3, 3, 4, 5]
    assert tree.forest([QuerySpan(leaf, 2, 4)]).query_hidden is None
