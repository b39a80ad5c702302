"""The tree of cached prefixes: which tokens' KV lies in which pages, and who still needs it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count

from bough.cache.layout import PageLayout, ceil_div
from bough.cache.lru import EvictionQueue
from bough.cache.node import Match, QuerySpan, RadixNode, walk
from bough.cache.pool import KVPool, PoolExhausted, SlotMove
from bough.cache.rows import NodeRows
from bough.expect import expect
from bough.forest import Forest


class RadixTree:
    """Cached prefixes as a tree for each salt; two salts never share.

    A path from a root spells a prefix, exact to the token. A node may start and end inside a page:
    splitting a node inside a page leaves that page to both halves, and the first child may go on
    in the slots that its parent's last page has left, so no page is ever copied.

    Closed nodes can be matched; open leaves belong to one sample each and grow token by token.
    Locks are counted along whole paths: what is locked is never evicted, moved or shortened.
    Tokens whose KV is not stored yet (`num_computed`) may be matched while their node is locked;
    they are dropped with the last lock, so what is not locked is complete.

    Args:
        pool: where the pages come from. Nothing else takes pages from it.
    """

    def __init__(self, pool: KVPool) -> None:
        self._pool = pool
        self._layout = PageLayout(pool)
        self._roots: dict[str, RadixNode] = {}
        self._open_leaves: dict[RadixNode, None] = {}
        self._rows = NodeRows(pool.page_size)
        self._num_nodes = 0
        self._num_evictable_pages = 0
        self._clock = count(1)
        self._evictable = EvictionQueue()

    @property
    def num_nodes(self) -> int:
        """Nodes with tokens, and open leaves; roots do not count."""
        return self._num_nodes

    @property
    def num_evictable_pages(self) -> int:
        """Pages that `evict` could free now."""
        return self._num_evictable_pages

    def nodes(self) -> Iterator[RadixNode]:
        """Walk all nodes but the roots, parents before children; the tree must not change."""
        for root in self._roots.values():
            yield from root.below()
        yield from self._open_leaves

    def match(self, tokens: Sequence[int], salt: str = "") -> Match:
        """Find the longest cached prefix of `tokens`; nothing is changed.

        The result is safe to use until the tree is changed next, or as long as its node is locked.
        """
        return walk(self._roots.get(salt) or RadixNode(parent=None, salt=salt), list(tokens))

    def insert(self, tokens: Sequence[int], salt: str = "") -> RadixNode:
        """Make `tokens` a path of the tree and lock it.

        Takes pages for the part that is not cached, with nothing computed, and evicts for them.

        Args:
            tokens: token ids, at least one.
            salt: the namespace.

        Returns:
            The node that ends at the last token, locked once; give it back with `release`.

        Raises:
            PoolExhausted: all that is not locked is too little; nothing is changed.
        """
        tokens = list(tokens)
        expect(bool(tokens), "tokens", "at least 1 token", len(tokens))
        match = self._make_room(self.match(tokens, salt), tokens, salt)
        node = self._split_at(match)
        self.lock(node)
        if match.length == len(tokens):
            return node
        if node.parent is None:
            self._roots[salt] = node
        leaf = RadixNode(parent=node, salt=salt, start=node.end, num_locks=1)
        new = tokens[match.length :]
        self._evict_for(self._layout.num_missing_pages(leaf, len(new)))
        self._layout.grow(leaf, new)
        node.children[new[0]] = leaf
        self._num_nodes += 1
        self._rows.add(leaf)
        return leaf

    def fork(self, node: RadixNode) -> RadixNode:
        """Open an empty leaf below a closed node and lock it once; give it back with `close`."""
        expect(node.is_closed, "node", "a closed node of the tree", node)
        leaf = RadixNode(parent=node, salt=node.salt, start=node.end, is_open=True)
        self._open_leaves[leaf] = None
        self._num_nodes += 1
        self.lock(leaf)
        return leaf

    def append(self, leaf: RadixNode, *tokens: int) -> None:
        """Let an open leaf grow by one token or more, which are not computed yet.

        Takes pages where its own are full, and evicts for them. The first leaf that grows below a
        node takes the slots that the node's last page has left.

        Raises:
            PoolExhausted: more pages are needed than are not locked; nothing is changed.
        """
        expect(leaf.is_open, "leaf", "an open leaf", leaf)
        new = list(tokens)
        if not self._layout.append(leaf, new):
            self._evict_for(self._layout.num_missing_pages(leaf, len(leaf.tokens) + len(new)))
            self._layout.grow(leaf, new)
            self._rows.add_pages(leaf)
        self._rows.set_length(leaf)

    def keep(self, leaf: RadixNode, num_newest: int, kept: Sequence[int]) -> list[SlotMove]:
        """Keep some of an open leaf's newest tokens, such as a path of drafts, and drop the others.

        The leaf's pages stay its own, for the next drafts, until it is closed.

        Args:
            leaf: an open leaf whose tokens are all computed.
            num_newest: how many are drafts; others stand before them.
            kept: the drafts to keep, ascending, by index among them.

        Returns:
            (source, target) slots for `KVPool.move`, before any of these slots is used again.
        """
        expect(leaf.is_open and leaf.is_complete, "leaf", "open and computed", leaf)
        expect(num_newest < len(leaf.tokens), "num_newest", f"below {len(leaf.tokens)}", num_newest)
        moves = self._layout.keep(leaf, num_newest, kept)
        self._rows.set_length(leaf)
        return moves

    def lock(self, node: RadixNode) -> None:
        """Keep `node` and all above it: they are rows of every forest and are not evicted."""
        unlocked = [above for above in node.path() if above.num_locks == 0]
        for above in node.path():
            above.num_locks += 1
        for above in reversed(unlocked):
            if above.parent is not None:
                self._num_evictable_pages -= above.num_own_pages
                self._rows.add(above)

    def unlock(self, node: RadixNode) -> None:
        """Undo one `lock`. What nobody locks any more may be evicted, the longest unlocked first.

        Of a path that nobody locks, the tokens that are not computed are dropped, with all that
        stands below them. An open leaf keeps its last lock until it is closed.
        """
        expect(node.num_locks > node.is_open, "node", "locked by `lock`", node)
        self._drop_lock(node)

    def release(self, node: RadixNode) -> None:
        """Give a node from `insert` back: `unlock` for closed nodes."""
        expect(node.is_closed, "node", "a closed node of the tree", node)
        self.unlock(node)

    def close(self, leaf: RadixNode) -> None:
        """Give an open leaf back: drop its lock and let its computed tokens be matched.

        Tokens that are not computed are dropped. Those that a closed path spells already are
        merged with it, and their pages are released; the rest is a closed node below that path,
        or is dropped where that path is not computed yet. `leaf` is not to be used afterwards.
        """
        expect(leaf.is_open and leaf.num_locks == 1, "leaf", "open and locked once", leaf)
        above = leaf.parent
        assert above is not None
        self._layout.shorten(leaf, leaf.num_computed)
        match = walk(above, leaf.tokens)
        if match.length > match.node.start + match.node.num_computed:
            self._layout.shorten(leaf, match.length - leaf.start)
        is_merged = match.length == leaf.end
        last = match.node if is_merged else self._split_at(match)
        self.lock(last)
        del self._open_leaves[leaf]
        leaf.is_open = False
        if is_merged:
            self._layout.shorten(leaf, 0)
            self._rows.remove(leaf)
            self._num_nodes -= 1
            leaf.parent, leaf.num_locks = None, 0
        else:
            self._layout.drop_head(leaf, match.length - leaf.start)
            leaf.parent = last
            last.children[leaf.tokens[0]] = leaf
        self._drop_lock(above)
        self._drop_lock(last if is_merged else leaf)

    def evict(self, num_pages: int) -> int:
        """Remove unlocked nodes, of the childless ones always the longest unlocked.

        Args:
            num_pages: pages to free at least, if there are as many.

        Returns:
            Pages freed.
        """
        num_free = self._pool.num_free
        while self._pool.num_free - num_free < num_pages and (node := self._evictable.pop()):
            self._remove(node)
        return self._pool.num_free - num_free

    def forest(self, spans: Sequence[QuerySpan]) -> Forest:
        """Take a snapshot of all locked nodes, with the queries of `spans`, one request each.

        Costs what the nodes' numbers cost to copy; the snapshot stays as it is whatever the tree
        does later. Rows of nodes that are gone are dead: no parent, no tokens and no pages.

        Raises:
            ValueError: a span's node is not locked, or a query lies outside its node.
        """
        return self._rows.snapshot(spans)

    def _make_room(self, match: Match, tokens: list[int], salt: str) -> Match:
        """See to it that what follows `match` can have its pages, or raise PoolExhausted.

        Where the cached part of the path stands in the way (each branch may leave slots unused),
        all that is not locked is evicted, so that whatever fits into the unlocked pages fits.
        """
        available = self._pool.num_free + self._num_evictable_pages
        if self._layout.num_pages_behind(match, len(tokens)) <= available:
            return match
        num_new = len(tokens) - min(match.length, match.node.locked_end)
        if ceil_div(num_new, self._pool.page_size) > available:
            raise PoolExhausted(
                f"tokens must fit the {available} pages that are not locked, got {num_new} more"
            )
        self.evict(self._num_evictable_pages)
        return self.match(tokens, salt)

    def _evict_for(self, num_pages: int) -> None:
        """See to it that `num_pages` are free, or raise PoolExhausted with nothing changed."""
        available = self._pool.num_free + self._num_evictable_pages
        if num_pages > available:
            raise PoolExhausted(
                f"num_pages must be at most the {available} that are not locked, got {num_pages}"
            )
        self.evict(num_pages - self._pool.num_free)

    def _split_at(self, match: Match) -> RadixNode:
        """Return the node that ends where `match` ends, which may be a new one above the old."""
        node = match.node
        if match.length == node.end:
            return node
        upper = self._layout.split(node, match.length - node.start)
        self._num_nodes += 1
        if node.row >= 0:
            self._rows.split(upper, node)
        return upper

    def _drop_lock(self, node: RadixNode) -> None:
        incomplete: RadixNode | None = None
        now = next(self._clock)
        for above in node.path():
            above.num_locks -= 1
            if above.num_locks == 0 and above.parent is not None:
                self._rows.remove(above)
                self._num_evictable_pages += above.num_own_pages
                above.last_used = now
                self._evictable.offer(above)
                incomplete = incomplete if above.is_complete else above
        if incomplete is not None:
            self._drop_uncomputed(incomplete)

    def _drop_uncomputed(self, node: RadixNode) -> None:
        """Shorten an unlocked node to what is computed; what stands below it goes first."""
        for lower in reversed(node.below()):
            self._remove(lower)
        if node.num_computed == 0:
            self._remove(node)
            return
        self._num_evictable_pages -= node.num_own_pages
        self._layout.shorten(node, node.num_computed)
        self._num_evictable_pages += node.num_own_pages

    def _remove(self, node: RadixNode) -> None:
        """Remove an unlocked node without children."""
        parent = node.parent
        assert parent is not None
        del parent.children[node.tokens[0]]
        self._num_nodes -= 1
        self._num_evictable_pages -= node.num_own_pages
        self._layout.shorten(node, 0)
        node.parent = None
        if parent.parent is not None:
            self._evictable.offer(parent)
        elif not parent.children and parent.num_locks == 0:
            del self._roots[parent.salt]
