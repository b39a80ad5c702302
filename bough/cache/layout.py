"""Where the tokens of tree nodes lie in pages, and which nodes share a page. No tree logic here."""

from __future__ import annotations

from dataclasses import replace

from bough.cache.node import RadixNode
from bough.cache.pool import KVPool


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

    def append(self, leaf: RadixNode, token: int) -> bool:
        """Add a token where the last page of a leaf has a slot left; return whether it has."""
        if leaf.first_slot + len(leaf.tokens) == len(leaf.pages) * self._page_size:
            return False
        leaf.tokens.append(token)
        self._num_used[leaf.pages[-1]] += 1
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
        if leaf.pages:
            self._num_used[leaf.pages[-1]] = self._page_size
        for page in pages:
            self._num_used[page] = self._page_size
        leaf.pages += pages
        leaf.tokens += tokens
        self._num_used[leaf.pages[-1]] -= self._num_free_slots(leaf)

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

    def _num_free_slots(self, node: RadixNode) -> int:
        """Count the slots of a node's last page that lie behind its last token."""
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
