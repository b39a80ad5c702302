"""One node of the radix tree, and what points at nodes. What may happen to them is in radix."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple


@dataclass(eq=False, slots=True, kw_only=True)
class RadixNode:
    """A run of tokens that the same prefixes share, and the pages that hold their KV.

    Token j lies at position `start + j`, in slot `first_slot + j` counted from the start of the
    first page. The tree alone changes a node, except that its user raises `num_computed` as KV is
    stored. A node is safe to use while it is locked; a split keeps the object as the lower part,
    so that a locked node goes on ending at the same token.

    Args:
        parent: the node above; None for a root (which has no tokens) and for a removed node.
        salt: the namespace.
        start: tokens on the path above.
        tokens: token ids.
        pages: physical pages, in order; empty as long as there are no tokens.
        first_slot: slot of the first token in the first page.
        num_computed: tokens, from the first on, whose KV is stored. Only where it is complete may
            nodes below it have computed tokens.
        num_locks: locks on the node itself and on all below it.
        children: closed nodes below, by their first token; open leaves are not among them.
        is_open: whether the node is an open leaf: it grows and cannot be matched.
        shares_page: whether an ancestor holds the first page too.
        last_used: when the last lock was dropped, on the tree's own clock.
        row: index of the node in a `Forest` while it is locked, else -1.
    """

    parent: RadixNode | None
    salt: str
    start: int = 0
    tokens: list[int] = field(default_factory=list)
    pages: list[int] = field(default_factory=list)
    first_slot: int = 0
    num_computed: int = 0
    num_locks: int = 0
    children: dict[int, RadixNode] = field(default_factory=dict)
    is_open: bool = False
    shares_page: bool = False
    last_used: int = 0
    row: int = -1

    def __repr__(self) -> str:
        kind = "open, " if self.is_open else ""
        return (
            f"RadixNode({kind}positions {self.start}:{self.end}, {self.num_computed} computed, "
            f"{self.num_locks} locks)"
        )

    @property
    def end(self) -> int:
        """Position after the last token."""
        return self.start + len(self.tokens)

    @property
    def is_closed(self) -> bool:
        """Whether it is a node of the tree that can be matched."""
        return self.parent is not None and not self.is_open

    @property
    def locked_end(self) -> int:
        """Position after the last token on its path that is locked."""
        return next((node.end for node in self.path() if node.num_locks), 0)

    @property
    def num_own_pages(self) -> int:
        """Pages that no ancestor holds: those that are free once the node is removed."""
        return len(self.pages) - self.shares_page

    @property
    def is_complete(self) -> bool:
        """Whether the KV of all tokens is stored."""
        return self.num_computed == len(self.tokens)

    def below(self) -> list[RadixNode]:
        """List the closed nodes below it, parents before children."""
        found = list(self.children.values())
        for node in found:  # grows as it is walked
            found.extend(node.children.values())
        return found

    def path(self) -> Iterator[RadixNode]:
        """Walk from the node itself up to its root."""
        node: RadixNode | None = self
        while node is not None:
            yield node
            node = node.parent


class Match(NamedTuple):
    """The longest cached prefix of some tokens.

    Args:
        node: the deepest node that the prefix touches; a root for an empty prefix.
        length: tokens of the prefix, from position 0 on; it may end inside `node`.
    """

    node: RadixNode
    length: int


class QuerySpan(NamedTuple):
    """Consecutive queries of one request, all inside one node.

    Args:
        node: a locked node.
        position: position of the first query.
        num_queries: queries, at least 1.
        draft_parents: where the newest of them are drafts, their tree, as `Forest.with_drafts`
            takes it.
    """

    node: RadixNode
    position: int
    num_queries: int
    draft_parents: Sequence[int] = ()


def walk(node: RadixNode, tokens: list[int]) -> Match:
    """Follow `tokens`, which come after the last token of `node`, down closed nodes."""
    begin = length = node.end
    while length - begin < len(tokens):
        child = node.children.get(tokens[length - begin])
        if child is None:
            break
        node = child
        length += _common_length(node.tokens, tokens, length - begin)
        if length < node.end:
            break
    return Match(node, length)


def _common_length(run: list[int], tokens: list[int], begin: int) -> int:
    """Count the tokens at the head of `run` that equal `tokens[begin:]`, by comparing slices."""
    low, high = 0, min(len(run), len(tokens) - begin)
    if run[:high] == tokens[begin : begin + high]:
        return high
    while high - low > 1:  # the first difference lies in run[low:high]
        middle = (low + high) // 2
        if run[low:middle] == tokens[begin + low : begin + middle]:
            low = middle
        else:
            high = middle
    return low
