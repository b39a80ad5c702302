from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bough.cache import Match, PoolExhausted, RadixTree
from tests.cache.oracle import compute, grow, make_tree, path_tokens, slots

PAGE_SIZE = 4


def cache(tree: RadixTree, tokens: list[int], salt: str = "") -> None:
    tree.release(compute(tree.insert(tokens, salt)))


def test_a_match_is_exact_to_the_token_and_may_end_inside_a_node() -> None:
    _, tree = make_tree(8, PAGE_SIZE)
    node = tree.insert([1, 2, 3, 4, 5, 6, 7])
    assert tree.match([1, 2, 3, 4, 5, 9, 7]) == Match(node, 5)
    assert tree.match([1, 2, 3]) == Match(node, 3)
    assert tree.match((1, 2, 3, 4, 5, 6, 7, 8)) == Match(node, 7)
    assert tree.match([2]).length == tree.match([]).length == 0


@given(
    tokens=st.lists(st.integers(0, 2), min_size=1, max_size=40),
    other=st.lists(st.integers(0, 2), max_size=40),
    num_kept=st.integers(0, 40),
)
def test_a_match_is_the_longest_common_prefix(
    tokens: list[int], other: list[int], num_kept: int
) -> None:
    _, tree = make_tree(10, PAGE_SIZE)
    tree.insert(tokens)
    wanted = tokens[:num_kept] + other
    expected = 0
    while expected < min(len(tokens), len(wanted)) and tokens[expected] == wanted[expected]:
        expected += 1
    assert tree.match(wanted).length == expected


def test_two_salts_never_share() -> None:
    pool, tree = make_tree(8, PAGE_SIZE)
    tree.insert([1, 2, 3], "a")
    assert tree.match([1, 2, 3], "b").length == 0
    other = tree.insert([1, 2, 3], "b")
    assert tree.match([1, 2, 3], "b").node is other
    assert pool.num_free == 6


def test_equal_prompts_share_one_node() -> None:
    pool, tree = make_tree(8, PAGE_SIZE)
    node = tree.insert([1, 2, 3, 4, 5])
    assert tree.insert([1, 2, 3, 4, 5]) is node
    assert (node.num_locks, tree.num_nodes, pool.num_free) == (2, 1, 6)


@pytest.mark.parametrize("num_computed", [0, 3, 5, 6, 9])
def test_a_split_keeps_the_lower_node_and_divides_what_is_computed(num_computed: int) -> None:
    pool, tree = make_tree(8, PAGE_SIZE)
    node = tree.insert([1, 2, 3, 4, 5, 6, 7, 8, 9])
    node.num_computed = num_computed
    places = slots(node, PAGE_SIZE)
    other = tree.insert([1, 2, 3, 4, 5, 60])
    upper = node.parent
    assert upper is not None and upper is other.parent
    assert path_tokens(node) == (1, 2, 3, 4, 5, 6, 7, 8, 9)
    assert slots(upper, PAGE_SIZE) + slots(node, PAGE_SIZE) == places
    assert (upper.num_computed, node.num_computed) == (
        min(5, num_computed),
        max(0, num_computed - 5),
    )
    assert (upper.num_locks, node.num_locks, other.num_locks) == (2, 1, 1)
    assert upper.pages[-1] == node.pages[0]
    assert pool.num_free == 4


def test_a_prefix_of_a_node_becomes_a_node_of_its_own() -> None:
    _, tree = make_tree(8, PAGE_SIZE)
    node = tree.insert([1, 2, 3, 4, 5])
    upper = tree.insert([1, 2, 3])
    assert node.parent is upper
    assert (upper.end, upper.num_locks, node.start, node.num_locks) == (3, 2, 3, 1)


def test_the_first_branch_goes_on_in_the_last_page_and_others_take_fresh_ones() -> None:
    pool, tree = make_tree(8, PAGE_SIZE)
    prompt = compute(tree.insert([1, 2, 3, 4, 5]))
    first, second = grow(tree, prompt, [6, 7]), grow(tree, prompt, [8])
    assert (first.pages, first.first_slot) == (prompt.pages[-1:], 1)
    assert second.pages[0] not in prompt.pages and second.first_slot == 0
    assert pool.num_free == 5
    third = tree.insert([1, 2, 3, 4, 5, 9])
    assert third.first_slot == 0


def test_the_slots_behind_a_node_are_free_again_once_the_branch_in_them_is_gone() -> None:
    _, tree = make_tree(8, PAGE_SIZE)
    prompt = compute(tree.insert([1, 2, 3, 4, 5]))
    for _ in range(3):
        leaf = grow(tree, prompt, [6])
        assert (leaf.pages, leaf.first_slot) == (prompt.pages[-1:], 1)
        leaf.num_computed = 0
        tree.close(leaf)


def test_an_open_leaf_is_matched_only_after_it_is_closed() -> None:
    _, tree = make_tree(8, PAGE_SIZE)
    leaf = grow(tree, compute(tree.insert([1, 2])), [3, 4, 5])
    tree.append(leaf, 6)
    assert tree.match([1, 2, 3, 4, 5, 6]).length == 2
    tree.close(leaf)
    assert tree.match([1, 2, 3, 4, 5, 6]) == Match(leaf, 5)


def test_the_slots_of_dropped_tokens_can_be_used_again() -> None:
    _, tree = make_tree(8, PAGE_SIZE)
    node = tree.insert([1, 2, 3, 4, 5, 6, 7])
    node.num_computed = 5
    tree.release(node)
    other = tree.insert([1, 2, 3, 4, 5, 9])
    assert (other.parent, other.pages, other.first_slot) == (node, node.pages[-1:], 1)


def test_uncomputed_tokens_of_a_released_path_are_not_matched() -> None:
    pool, tree = make_tree(8, PAGE_SIZE)
    upper, lower = tree.insert([1, 2, 3, 4, 5, 6]), tree.insert([1, 2, 3, 4, 5, 6, 7, 8, 9])
    upper.num_computed = 3
    tree.release(upper)
    assert tree.match([1, 2, 3, 4, 5, 6, 7, 8, 9]).length == 9
    tree.release(lower)
    assert tree.match([1, 2, 3, 4, 5, 6, 7, 8, 9]) == Match(upper, 3)
    assert (tree.num_nodes, pool.num_free, tree.num_evictable_pages) == (1, 7, 1)


def test_a_path_of_which_nothing_is_computed_leaves_nothing_behind() -> None:
    pool, tree = make_tree(8, PAGE_SIZE)
    tree.release(tree.insert([1, 2, 3, 4, 5, 6]))
    assert (tree.num_nodes, pool.num_free) == (0, 8)


def test_the_leaf_that_was_unlocked_first_is_evicted_first() -> None:
    pool, tree = make_tree(8, PAGE_SIZE)
    held = {first: compute(tree.insert([first] * 5)) for first in (1, 2, 3)}
    for first in (2, 1, 3):
        tree.release(held[first])
    tree.lock(held[2])
    tree.unlock(held[2])
    tree.match([1] * 5)
    for gone, left in ((1, {2, 3}), (3, {2}), (2, set())):
        assert tree.evict(1) == 2
        assert tree.match([gone] * 5).length == 0
        assert all(tree.match([first] * 5).length == 5 for first in left)
    assert pool.num_free == 8


def test_a_path_is_evicted_from_its_end() -> None:
    _, tree = make_tree(8, PAGE_SIZE)
    cache(tree, [1] * 4)
    cache(tree, [1] * 8)
    assert tree.evict(1) == 1
    assert tree.match([1] * 8).length == 4


def test_what_is_locked_is_not_evicted() -> None:
    pool, tree = make_tree(4, PAGE_SIZE)
    held = compute(tree.insert([1] * 8))
    cache(tree, [1] * 8 + [2] * 4)
    assert tree.evict(4) == 1
    assert tree.match([1] * 8) == Match(held, 8)
    assert (pool.num_free, tree.num_evictable_pages) == (2, 0)


def test_insert_evicts_the_oldest_but_not_what_it_shares() -> None:
    _, tree = make_tree(4, PAGE_SIZE)
    for first in (1, 2, 3):
        cache(tree, [first] * 4)
    tree.insert([1] * 4 + [4] * 8)
    assert tree.match([2] * 4).length == 0
    assert tree.match([3] * 4).length == 4


def test_insert_without_room_changes_nothing() -> None:
    pool, tree = make_tree(4, PAGE_SIZE)
    tree.insert([1] * 8)
    cache(tree, [2] * 4)
    with pytest.raises(PoolExhausted, match="tokens must fit the 2 pages that are not locked"):
        tree.insert([1, 1, 1, 3, 3, 3, 3, 3, 3, 3, 3, 3])
    assert (pool.num_free, tree.num_nodes) == (1, 2)
    assert tree.match([2] * 4).length == 4


def test_append_without_room_changes_nothing() -> None:
    _, tree = make_tree(2, PAGE_SIZE)
    leaf = grow(tree, compute(tree.insert([1] * 5)), [2, 2, 2])
    with pytest.raises(PoolExhausted, match="at most the 0 that are not locked, got 1"):
        tree.append(leaf, 3)
    assert leaf.tokens == [2, 2, 2] and leaf.pages == leaf.parent.pages[-1:]


def test_append_evicts_for_its_page() -> None:
    _, tree = make_tree(3, PAGE_SIZE)
    cache(tree, [7] * 4)
    leaf = grow(tree, compute(tree.insert([1] * 8)), [2])
    assert leaf.pages and tree.match([7] * 4).length == 0


def test_whatever_fits_the_pool_fits_when_nothing_is_locked() -> None:
    """The cached branches leave slots of three pages unused, which must not stand in the way."""
    _, tree = make_tree(4, PAGE_SIZE)
    for tokens in ([1, 1, 1, 1, 1, 2], [1, 1, 1, 1, 1, 3], [1, 1, 1, 1, 1, 3, 3, 4]):
        cache(tree, tokens)
    node = tree.insert([1, 1, 1, 1, 1, 3, 3, 5, 5, 5, 5, 5, 5, 5, 5, 5])
    assert node.end == 16


def test_a_chain_deeper_than_the_recursion_limit_is_served() -> None:
    pool, tree = make_tree(300, PAGE_SIZE)
    tokens = list(range(1050))
    nodes = [tree.insert(tokens[:end]) for end in range(1, 1051)]
    assert tree.num_nodes == tree.forest([]).num_nodes == 1050
    for node in nodes[1:]:
        node.num_computed = 1
        tree.release(node)
    tree.release(nodes[0])
    assert (tree.num_nodes, pool.num_free) == (0, 300)


def test_wrong_uses_are_refused() -> None:
    _, tree = make_tree(8, PAGE_SIZE)
    node = tree.insert([1, 2])
    leaf = tree.fork(node)
    with pytest.raises(ValueError, match="tokens must be at least 1 token, got 0"):
        tree.insert([])
    with pytest.raises(ValueError, match="leaf must be an open leaf"):
        tree.append(node, 3)
    with pytest.raises(ValueError, match="leaf must be open and locked once"):
        tree.close(node)
    for refused in (tree.fork, tree.release):
        with pytest.raises(ValueError, match="node must be a closed node of the tree"):
            refused(leaf)
    with pytest.raises(ValueError, match="node must be locked by `lock`"):
        tree.unlock(leaf)
    tree.close(leaf)
    with pytest.raises(ValueError, match="leaf must be open and locked once"):
        tree.close(leaf)
    tree.release(node)
    with pytest.raises(ValueError, match="node must be a closed node of the tree"):
        tree.release(node)
