"""Random histories of a small tree, beside a model that knows prefixes, locks and times only."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from bough.cache import PoolExhausted, QuerySpan, RadixNode
from bough.forest import Forest
from tests.cache.oracle import (
    Prefix,
    describe,
    evicted_nodes,
    fingerprint,
    forest_from_nodes,
    make_tree,
    node_prefixes,
    num_pages_of,
    path_tokens,
    prefixes,
    slots,
)

POOL_PAGES = {1: 30, 3: 11, 4: 9, 16: 5}
SALTS = st.sampled_from(["", "other"])
TOKENS = st.integers(0, 1)
HAS_HANDLES = precondition(lambda self: self.handles)
HAS_LEAVES = precondition(lambda self: self.leaves)


@dataclass(eq=False)
class Held:
    """A node that was handed out, and the prefix that it has to go on standing for."""

    node: RadixNode
    salt: str
    tokens: tuple[int, ...]
    is_inserted: bool = True


class RadixMachine(RuleBasedStateMachine):
    page_size: int

    def __init__(self) -> None:
        super().__init__()
        self.num_pages = POOL_PAGES[self.page_size]
        self.pool, self.tree = make_tree(self.num_pages, self.page_size)
        self.handles: list[Held] = []
        self.leaves: list[Held] = []
        self.cached: dict[Prefix, bool] = {}  # and whether its last token is computed
        self.used: dict[Prefix, int] = {}
        self.stored: dict[tuple[int, int], Prefix] = {}  # what was written to a slot last
        self.snapshots: list[tuple[Forest, object]] = []
        self.time = 0

    @rule(data=st.data(), salt=SALTS, length=st.integers(1, 40))
    def insert(self, data: st.DataObject, salt: str, length: int) -> None:
        tokens = self.draw_tokens(data, salt, length)
        wanted, before = prefixes(salt, tokens), fingerprint(self.tree, self.pool)
        num_locked = len(wanted & self.locked())
        needs_eviction = self.num_pages_for(len(tokens)) > self.pool.num_free
        available = self.pool.num_free + self.tree.num_evictable_pages
        try:
            node = self.tree.insert(tokens, salt)
        except PoolExhausted:
            assert self.num_pages_for(len(tokens) - num_locked) > available
            assert fingerprint(self.tree, self.pool) == before
            return
        self.handles.append(Held(node, salt, tuple(tokens)))
        self.cached = dict.fromkeys(wanted, False) | self.cached
        if needs_eviction:
            self.forget_evicted()
            self.cached |= {prefix: node_prefixes(self.tree)[prefix] for prefix in wanted}

    @HAS_HANDLES
    @rule(data=st.data(), num_tokens=st.integers(1, 30))
    def compute(self, data: st.DataObject, num_tokens: int) -> None:
        held = data.draw(st.sampled_from(self.handles + self.leaves))
        self.run(held, num_tokens)

    @HAS_HANDLES
    @rule(data=st.data())
    def fork(self, data: st.DataObject) -> None:
        held = data.draw(st.sampled_from(self.handles))
        self.leaves.append(Held(self.tree.fork(held.node), held.salt, path_tokens(held.node)))

    @HAS_LEAVES
    @rule(data=st.data(), tokens=st.lists(TOKENS, min_size=1, max_size=12), is_run=st.booleans())
    def append(self, data: st.DataObject, tokens: list[int], is_run: bool) -> None:
        leaf = data.draw(st.sampled_from(self.leaves))
        if is_run:
            self.run(leaf, len(leaf.tokens))
        for token in tokens:
            before = fingerprint(self.tree, self.pool)
            try:
                self.tree.append(leaf.node, token)
            except PoolExhausted:
                assert self.pool.num_free + self.tree.num_evictable_pages == 0
                assert fingerprint(self.tree, self.pool) == before
                return
            leaf.tokens = (*leaf.tokens, token)
            if is_run:
                self.run(leaf, 1)
            self.forget_evicted()

    @HAS_LEAVES
    @rule(data=st.data(), tokens=st.lists(TOKENS, min_size=1, max_size=12))
    def draft(self, data: st.DataObject, tokens: list[int]) -> None:
        leaf = data.draw(st.sampled_from(self.leaves))
        num_before = len(leaf.node.tokens)
        before = fingerprint(self.tree, self.pool)
        try:
            self.tree.append(leaf.node, *tokens)
        except PoolExhausted:
            assert self.num_pages_for(len(tokens)) > self.pool.num_free
            assert fingerprint(self.tree, self.pool) == before
            return
        leaf.tokens = (*leaf.tokens, *tokens)
        self.forget_evicted()
        self.run(leaf, len(leaf.tokens))
        if num_before == 0 or not leaf.node.is_complete:
            return
        kept = sorted(data.draw(st.sets(st.integers(0, len(tokens) - 1))))
        leaf.tokens = (*leaf.tokens[: -len(tokens)], *(tokens[at] for at in kept))
        for source, target in self.tree.keep(leaf.node, len(tokens), kept):
            assert divmod(source, self.page_size) in self.stored
            place = divmod(target, self.page_size)
            at = slots(leaf.node, self.page_size).index(place)
            assert leaf.node.tokens[at] == self.stored[divmod(source, self.page_size)][1][-1]
        for token, place in enumerate(slots(leaf.node, self.page_size)):
            self.stored[place] = (leaf.salt, leaf.tokens[: leaf.node.start + token + 1])

    @HAS_LEAVES
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        leaf = data.draw(st.sampled_from(self.leaves))
        self.leaves.remove(leaf)
        kept = leaf.tokens[: leaf.node.start + leaf.node.num_computed]
        self.tree.close(leaf.node)
        spelt = prefixes(leaf.salt, kept)
        if all(self.cached.get(prefix, True) for prefix in spelt):
            self.cached |= dict.fromkeys(spelt, True)
        self.drop_uncomputed()
        self.touch(leaf.salt, path_tokens(self.tree.match(kept, leaf.salt).node))

    @HAS_HANDLES
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        held = data.draw(st.sampled_from(self.handles))
        self.handles.remove(held)
        if held.is_inserted:
            self.tree.release(held.node)
        else:
            self.tree.unlock(held.node)
        self.touch(held.salt, held.tokens)
        self.drop_uncomputed()

    @rule(data=st.data(), salt=SALTS, length=st.integers(1, 40), is_locked=st.booleans())
    def match(self, data: st.DataObject, salt: str, length: int, is_locked: bool) -> None:
        tokens = self.draw_tokens(data, salt, length)
        before = fingerprint(self.tree, self.pool)
        node, length = self.tree.match(tokens, salt)
        assert length == len(prefixes(salt, tokens) & set(self.cached))
        assert node.start <= length <= node.end and path_tokens(node)[:length] == tokens[:length]
        assert fingerprint(self.tree, self.pool) == before
        if is_locked and length:
            self.tree.lock(node)
            self.handles.append(Held(node, salt, path_tokens(node), is_inserted=False))

    @rule(num_pages=st.integers(0, 12))
    def evict(self, num_pages: int) -> None:
        expected = evicted_nodes(self.tree, num_pages, self.used)
        num_free = self.pool.num_free
        assert self.tree.evict(num_pages) == self.pool.num_free - num_free
        gone = set(self.cached) - set(node_prefixes(self.tree))
        ends = {prefix for prefix in gone if not any(self.continues(prefix, g) for g in gone)}
        assert ends <= set(expected) <= gone
        self.forget_evicted()

    @invariant()
    def the_tree_spells_what_was_cached_and_nothing_else(self) -> None:
        assert node_prefixes(self.tree) == self.cached
        assert self.tree.num_nodes == sum(1 for _ in self.tree.nodes())

    @invariant()
    def locked_paths_stay_whole_and_unlocked_ones_are_computed(self) -> None:
        for held in self.handles + self.leaves:
            assert path_tokens(held.node) == held.tokens
        assert all(node.num_locks or node.is_complete for node in self.tree.nodes())
        locked = self.locked()
        for node in self.tree.nodes():
            is_locked = (node.salt, path_tokens(node)) in locked
            assert node.is_open or is_locked == (node.num_locks > 0)

    @invariant()
    def below_a_node_with_uncomputed_tokens_none_is_computed(self) -> None:
        for node in self.tree.nodes():
            assert node.num_computed == 0 or node.parent is None or node.parent.is_complete

    @invariant()
    def no_page_is_leaked_and_no_slot_used_twice(self) -> None:
        nodes = list(self.tree.nodes())
        places = [place for node in nodes for place in slots(node, self.page_size)]
        assert len(set(places)) == len(places)
        assert self.pool.num_free + num_pages_of(nodes) == self.num_pages
        num_locked = num_pages_of(node for node in nodes if node.num_locks)
        assert self.tree.num_evictable_pages == num_pages_of(nodes) - num_locked
        for node in nodes:
            num_slots = node.first_slot + len(node.tokens)
            least = self.num_pages_for(num_slots) if node.tokens else 0
            assert len(node.pages) == least or (node.is_open and len(node.pages) > least)

    @invariant()
    def computed_tokens_lie_where_they_were_stored(self) -> None:
        for node in self.tree.nodes():
            path = path_tokens(node)
            for token in range(node.num_computed):
                place = slots(node, self.page_size)[token]
                assert self.stored[place] == (node.salt, path[: node.start + token + 1])

    @invariant()
    def forests_equal_those_from_scratch(self) -> None:
        spans = [
            QuerySpan(node, node.start + len(node.tokens) // 2, -(-len(node.tokens) // 2))
            for node in (held.node for held in self.leaves + self.handles)
            if node.tokens
        ]
        forest = self.tree.forest(spans)
        expected = describe(forest_from_nodes(self.tree, self.page_size, spans))
        assert describe(forest) == expected
        self.snapshots.append((forest, expected))

    def teardown(self) -> None:
        assert all(describe(forest) == content for forest, content in self.snapshots)
        for leaf in self.leaves:
            self.tree.close(leaf.node)
        for held in self.handles:
            self.tree.unlock(held.node)
        self.tree.evict(self.num_pages)
        assert self.pool.num_free == self.num_pages

    def draw_tokens(self, data: st.DataObject, salt: str, length: int) -> tuple[int, ...]:
        """Continue a prefix that some salt has, so that paths meet and part everywhere."""
        known = sorted({tokens for _, tokens in self.cached}) or [()]
        head = data.draw(st.sampled_from(known))
        tail = data.draw(st.lists(TOKENS, min_size=1, max_size=8))
        return (*head, *tail)[:length]

    def run(self, held: Held, num_tokens: int) -> None:
        """Store the KV of the first `num_tokens` on a path that have none."""
        path = path_tokens(held.node)
        for node in reversed(list(held.node.path())):
            begin, end = node.num_computed, min(len(node.tokens), node.num_computed + num_tokens)
            for token in range(begin, end):
                prefix = (held.salt, path[: node.start + token + 1])
                self.stored[slots(node, self.page_size)[token]] = prefix
                if not node.is_open:
                    self.cached[prefix] = True
            node.num_computed = end
            num_tokens -= end - begin
            if end < len(node.tokens):
                return

    def locked(self) -> set[Prefix]:
        above = [(leaf.salt, leaf.tokens[: leaf.node.start]) for leaf in self.leaves]
        held = [(held.salt, held.tokens) for held in self.handles]
        return set().union(*(prefixes(salt, tokens) for salt, tokens in above + held))

    def num_pages_for(self, num_slots: int) -> int:
        return -(-num_slots // self.page_size)

    def touch(self, salt: str, tokens: tuple[int, ...]) -> None:
        self.time += 1
        self.used |= dict.fromkeys(prefixes(salt, tokens), self.time)

    def drop_uncomputed(self) -> None:
        """Forget what is neither locked nor computed, and all that continues it."""
        kept = self.locked() | {
            prefix for prefix, is_computed in self.cached.items() if is_computed
        }
        self.cached = {
            (salt, tokens): is_computed
            for (salt, tokens), is_computed in self.cached.items()
            if prefixes(salt, tokens) <= kept
        }

    def forget_evicted(self) -> None:
        spelt = node_prefixes(self.tree)
        assert self.locked() <= set(spelt)
        self.cached = {prefix: done for prefix, done in self.cached.items() if prefix in spelt}

    @staticmethod
    def continues(prefix: Prefix, longer: Prefix) -> bool:
        return longer == (prefix[0], (*prefix[1], longer[1][-1]))


@pytest.mark.parametrize("page_size", POOL_PAGES)
def test_no_history_breaks_the_tree(page_size: int) -> None:
    machine = type("SizedRadixMachine", (RadixMachine,), {"page_size": page_size})
    histories = settings(max_examples=25, stateful_step_count=40, deadline=None)
    run_state_machine_as_test(machine, settings=histories)
