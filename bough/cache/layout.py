"""Where the tokens of tree nodes lie in pages, and which nodes share a page. No tree logic here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bough.cache.node import Match, RadixNode
from bough.cache.pool import KVPool, SlotMove


class PageLayout:
    """Gives nodes their slots and takes them back, so that no page is ever copied.

    The nodes that share a page stand below one another, each in higher slots than those above it,
    and each of them holds the page once in the pool. The slots behind a node's last token go to
    the first child that asks; they are free again once that child has no tokens in them.

    Args:
        pool: where the pages come from.
    """

    def __init__(self, pool: KVPool) -> None:
        self._pool = pool
        self._page_size = pool.page_size
        # Slots of each held page, counted from 0, up to the last that holds a token.
        self._num_used = [0] * pool.num_pages

    def num_pages(self, node: RadixNode, num_tokens: int) -> int:
        """Count the pages that the first `num_tokens` of a node lie in."""
        return ceil_div(node.first_slot + num_tokens, self._page_size) if num_tokens else 0

    def num_tail_slots(self, node: RadixNode) -> int:
        """Count the slots behind a node's last token, in its last page, that a child may have."""
        if not node.pages:
            return 0
        num_free = self._num_free_slots(node)
        return num_free if self._num_used[node.pages[-1]] == self._page_size - num_free else 0

    def num_missing_pages(self, node: RadixNode, num_tokens: int) -> int:
        """Count the pages that `grow` would allocate."""
        if node.pages:
            num_slots = len(node.pages) * self._page_size - node.first_slot
        else:
            num_slots = self._num_head_slots(node)
        return max(0, ceil_div(num_tokens - num_slots, self._page_size))

    def num_pages_behind(self, match: Match, num_tokens: int) -> int:
        """Count the pages that a prefix of so many tokens takes beside those that are locked.

        They are the pages of what it shares with unlocked nodes, and those that it needs anew.
        """
        node, inside = match.node, match.length - match.node.start
        num_tail = self.num_tail_slots(node) if inside == len(node.tokens) else 0
        num_new = max(0, num_tokens - match.length - num_tail)
        num_kept = 0
        while node.parent is not None and node.num_locks == 0:
            num_kept += self.num_pages(node, inside) - node.shares_page
            node = node.parent
            inside = len(node.tokens)
        return num_kept + ceil_div(num_new, self._page_size)

    def append(self, leaf: RadixNode, tokens: list[int]) -> bool:
        """Add tokens where the pages of a leaf have slots left; return whether they have."""
        if self.num_pages(leaf, len(leaf.tokens) + len(tokens)) > len(leaf.pages):
            return False
        self._add(leaf, tokens)
        return True

    def grow(self, leaf: RadixNode, tokens: list[int]) -> None:
        """Add tokens to a leaf, and the pages they need.

        A leaf without pages begins behind its parent's last token if those slots are free.

        Raises:
            PoolExhausted: fewer pages are free than are missing; nothing is changed.
        """
        pages = self._pool.allocate(self.num_missing_pages(leaf, len(leaf.tokens) + len(tokens)))
        num_head = 0 if leaf.pages else self._num_head_slots(leaf)
        if num_head and leaf.parent is not None:
            leaf.pages = leaf.parent.pages[-1:]
            leaf.first_slot, leaf.shares_page = self._page_size - num_head, True
            self._pool.retain(leaf.pages)
        leaf.pages += pages
        self._add(leaf, tokens)

    def keep(self, leaf: RadixNode, num_newest: int, kept: Sequence[int]) -> list[SlotMove]:
        """Keep some of a leaf's newest tokens, one behind the other, and all of its pages.

        Args:
            leaf: a leaf whose tokens are all computed.
            num_newest: the newest tokens, of which some are kept.
            kept: which of them, ascending.

        Returns:
            where KV lies and where it belongs now, for the tokens that are no longer in place.
        """
        first = len(leaf.tokens) - num_newest
        newest = leaf.tokens[first:]
        moves = [
            (self._slot(leaf, first + source), self._slot(leaf, first + target))
            for target, source in enumerate(kept)
            if source != target
        ]
        leaf.tokens[first:] = [newest[at] for at in kept]
        leaf.num_computed = len(leaf.tokens)
        return moves

    def shorten(self, node: RadixNode, num_tokens: int) -> None:
        """Keep the first `num_tokens` of a node that has nothing below it."""
        self._release(node, self.num_pages(node, num_tokens), len(node.pages))
        del node.tokens[num_tokens:]
        node.num_computed = min(node.num_computed, num_tokens)
        if node.pages:
            self._num_used[node.pages[-1]] = self._page_size - self._num_free_slots(node)

    def drop_head(self, node: RadixNode, num_tokens: int) -> None:
        """Drop the first `num_tokens`, but not all, of a node and the pages only they lie in."""
        self._release(node, 0, (node.first_slot + num_tokens) // self._page_size)
        self._advance(node, num_tokens)

    def split(self, node: RadixNode, num_tokens: int) -> RadixNode:
        """Move the first `num_tokens`, but not all, into a new node that is put above `node`."""
        assert node.parent is not None
        num_upper = self.num_pages(node, num_tokens)
        num_before = (node.first_slot + num_tokens) // self._page_size
        upper = replace(
            node,
            tokens=node.tokens[:num_tokens],
            pages=node.pages[:num_upper],
            num_computed=min(node.num_computed, num_tokens),
            children={node.tokens[num_tokens]: node},
            row=-1,
        )
        node.parent.children[node.tokens[0]] = upper
        node.parent = upper
        del node.pages[:num_before]
        node.shares_page = num_before < num_upper
        self._pool.retain(node.pages[: int(node.shares_page)])
        self._advance(node, num_tokens)
        return upper

    def _add(self, leaf: RadixNode, tokens: list[int]) -> None:
        """Add tokens to a leaf that has pages for them."""
        begin = (leaf.first_slot + len(leaf.tokens)) // self._page_size
        leaf.tokens += tokens
        last = self.num_pages(leaf, len(leaf.tokens)) - 1
        for page in leaf.pages[begin:last]:
            self._num_used[page] = self._page_size
        self._num_used[leaf.pages[last]] = self._page_size - self._num_free_slots(leaf)

    def _slot(self, node: RadixNode, token: int) -> int:
        """Place of a token among all slots of the pool."""
        page, slot = divmod(node.first_slot + token, self._page_size)
        return node.pages[page] * self._page_size + slot

    def _num_free_slots(self, node: RadixNode) -> int:
        """Count the slots behind a node's last token in the page that it lies in."""
        return -(node.first_slot + len(node.tokens)) % self._page_size

    def _num_head_slots(self, leaf: RadixNode) -> int:
        """Count the slots that a leaf without pages may have in its parent's last page."""
        return 0 if leaf.parent is None else self.num_tail_slots(leaf.parent)

    def _advance(self, node: RadixNode, num_tokens: int) -> None:
        node.first_slot = (node.first_slot + num_tokens) % self._page_size
        node.start += num_tokens
        node.num_computed = max(0, node.num_computed - num_tokens)
        del node.tokens[:num_tokens]

    def _release(self, node: RadixNode, begin: int, end: int) -> None:
        """Let go of `node.pages[begin:end]`, and of the slots in a page of a node above."""
        if node.shares_page and begin == 0 < end:
            above = (upper for upper in node.path() if upper is not node)
            holder = next(upper for upper in above if upper.pages[-1:] == node.pages[:1])
            self._num_used[node.pages[0]] = self._page_size - self._num_free_slots(holder)
            node.shares_page = False
        self._pool.release(node.pages[begin:end])
        del node.pages[begin:end]


def ceil_div(dividend: int, divisor: int) -> int:
    """Divide whole numbers and round up."""
    return -(-dividend // divisor)
