"""What becomes of open leaves where closed paths spell the same tokens."""

from __future__ import annotations

from bough.cache import Match
from tests.cache.oracle import compute, grow, make_tree

PAGE_SIZE = 4


def test_closing_equal_leaves_keeps_one_copy() -> None:
    pool, tree = make_tree(12, PAGE_SIZE)
    prompt = compute(tree.insert([1, 2, 3, 4, 5]))
    leaves = [grow(tree, prompt, [6, 7, 8, 9, 10, last]) for last in (11, 11, 12)]
    assert pool.num_free == 12 - 2 - 1 - 2 - 2
    for leaf in leaves:
        tree.close(leaf)
    # 12 stays in the page that its own leaf took; its other page and the equal leaf are gone.
    assert pool.num_free == 12 - 2 - 1 - 1
    assert tree.match([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12]).length == 11
    assert tree.num_nodes == 4


def test_nothing_of_a_leaf_stays_below_an_equal_path_that_is_not_computed_yet() -> None:
    pool, tree = make_tree(8, PAGE_SIZE)
    prompt = compute(tree.insert([1, 2]))
    leaf = grow(tree, prompt, [3, 4, 5, 6])
    tree.release(prompt)
    equal = tree.insert([1, 2, 3, 4, 5])
    equal.num_computed = 2
    tree.close(leaf)
    assert tree.match([1, 2, 3, 4, 5, 6]) == Match(equal, 5)
    assert equal.num_computed == 2 and not equal.children
    assert pool.num_free == 8 - 1 - 1
    tree.release(equal)
    assert tree.match([1, 2, 3, 4, 5, 6]) == Match(equal, 4)
    assert tree.evict(8) == 2 and pool.num_free == 8


def test_what_is_left_of_a_merged_leaf_keeps_its_slots_in_an_ancestors_page() -> None:
    pool, tree = make_tree(8, PAGE_SIZE)
    prompt = compute(tree.insert([1]))
    first, second = grow(tree, prompt, [2, 3]), grow(tree, prompt, [2])
    tree.close(second)
    tree.close(first)
    assert (first.parent, first.tokens, first.first_slot) == (second, [3], 2)
    assert first.pages == prompt.pages and pool.num_free == 6
    tree.release(prompt)
    assert tree.evict(8) == 2 and pool.num_free == 8


def test_what_is_left_of_a_merged_leaf_lets_go_of_an_ancestors_page() -> None:
    pool, tree = make_tree(12, PAGE_SIZE)
    prompt = compute(tree.insert([1]))
    first, second = grow(tree, prompt, [2, 3, 4, 5, 6]), grow(tree, prompt, [2, 3, 4, 5, 7])
    tree.close(second)
    tree.close(first)
    assert (first.tokens, first.first_slot, pool.num_free) == ([6], 1, 12 - 1 - 2 - 1)
    tree.release(prompt)
    assert tree.num_evictable_pages == tree.evict(12) == 4
