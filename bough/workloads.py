"""Named forests: the trees that papers, peers and users measure, and a way to write one by hand."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np

from bough.expect import expect
from bough.forest import Forest


def forest_from_text(
    text: str, page_size: int = 16, *, query_len: int = 1, shuffle_seed: int | None = None
) -> Forest:
    """Build a forest from `"nodes per level | tokens per node"`.

    `1,16|4096,128` is a root of 4096 tokens with 16 leaves of 128; `8,64|512,32` is a forest of
    8 such trees; `1,2,4|1024` gives every level 1024 tokens; `16x9` stands for nine levels of 16.
    Children are dealt evenly to the nodes above them; each leaf is one request. Forests joined by
    `+` lie side by side: `15|1024 + 1|65536` is a batch in which one request is long.

    Args:
        text: the forest.
        page_size: slots per page; every node starts in a page of its own.
        query_len: the newest tokens of each request that are queries.
        shuffle_seed: scatter the pages over the pool in this random order; in order when None.

    Raises:
        ValueError: the text cannot be read, or a level does not divide over the one above.
    """
    expect(page_size >= 1, "page_size", "at least 1", page_size)
    parent: list[int] = []
    length: list[int] = []
    leaves: list[int] = []
    for part in text.split("+"):
        above: list[int] = []
        for num_nodes, num_tokens in zip(*_read(part), strict=True):
            first = len(parent)
            spread = num_nodes // max(1, len(above))
            parent += [above[at // spread] if above else -1 for at in range(num_nodes)]
            length += [num_tokens] * num_nodes
            above = list(range(first, len(parent)))
        leaves += above
    shortest = min(length[leaf] for leaf in leaves)
    if query_len < 1 or query_len > shortest:
        raise ValueError(
            f"query_len must be from 1 to the {shortest} tokens of a leaf, got {query_len}"
        )
    return forest_from_lengths(
        parent, length, leaves, page_size, query_len=query_len, shuffle_seed=shuffle_seed
    )


def forest_from_lengths(
    parent: list[int],
    length: list[int],
    leaves: list[int],
    page_size: int,
    *,
    query_len: int = 1,
    shuffle_seed: int | None = None,
) -> Forest:
    """Build a forest in a pool of just its pages; every node starts in a page of its own.

    Args:
        parent: parent of each node, -1 for a root; parents before children.
        length: tokens of each node.
        leaves: the node in which each request ends.
        page_size: slots per page.
        query_len: the newest tokens of each request that are queries.
        shuffle_seed: scatter the pages over the pool in this random order; in order when None.
    """
    counts = [-(-num_tokens // page_size) for num_tokens in length]
    pages = np.arange(sum(counts), dtype=np.int32)
    if shuffle_seed is not None:
        np.random.default_rng(shuffle_seed).shuffle(pages)
    stop: list[int] = []
    for above, num_tokens in zip(parent, length, strict=True):
        stop.append(num_tokens + (stop[above] if above >= 0 else 0))
    newest = np.array(stop)[leaves][:, None] + np.arange(-query_len, 0)
    return Forest.from_nodes(
        page_size=page_size,
        node_parent=parent,
        node_len=length,
        node_pages=np.split(pages, np.cumsum(counts)[:-1]),
        query_node=np.repeat(leaves, query_len),
        query_position=newest.ravel(),
        query_indptr=np.arange(len(leaves) + 1) * query_len,
    )


def beam_tree(num_drafts: int, width: int = 8) -> list[int]:
    """Grow a draft tree as a beam does: so many a level, two behind each of the better half.

    Returns:
        [num_drafts] parents as `Forest.with_drafts` takes them.
    """
    return [
        -1 if draft < width else (draft // width - 1) * width + draft % width // 2
        for draft in range(num_drafts)
    ]


def _read(text: str) -> tuple[list[int], list[int]]:
    if not re.fullmatch(r"[\d,x ]+\|[\d,x ]+", text):
        raise ValueError(f"forest must be 'nodes per level | tokens per node', got {text!r}")
    nodes, tokens = (_read_levels(side, text) for side in text.split("|"))
    if len(tokens) == 1:
        tokens = tokens * len(nodes)
    if len(tokens) != len(nodes):
        raise ValueError(f"forest must give tokens for {len(nodes)} levels, got {text!r}")
    for above, below in pairwise(nodes):
        if below % above:
            raise ValueError(f"a level must be a multiple of the {above} above it, got {below}")
    return nodes, tokens


def _read_levels(side: str, text: str) -> list[int]:
    levels: list[int] = []
    for part in side.replace(" ", "").split(","):
        match = re.fullmatch(r"(\d+)(?:x(\d+))?", part)
        if match is None or int(match[1]) < 1:
            raise ValueError(f"forest must list whole numbers of at least 1, got {text!r}")
        levels += [int(match[1])] * int(match[2] or 1)
    return levels


CODEC = (
    *(f"1,8|4096,{leaf}" for leaf in (128, 512, 2048)),
    *(f"1,{batch}|2048,2048" for batch in (4, 16, 64)),
    *(f"1,{batch}|120000,2048" for batch in (4, 16, 64)),
    *(",".join(str(2**level) for level in range(depth)) + "|1024" for depth in range(2, 7)),
    *(f"1,16|{shared},{120000 - shared}" for shared in (54857, 76800, 96000, 112941, 118154)),
    *(f"1,{arity},{arity**2}|1024" for arity in (2, 3, 4, 5)),
)
PAT = (
    "1,10|4096,416",
    "1,256|256,32",
    "1,1024|2048,32",
    "1,2,64|1024,256,256",
    "1,8,512|32,2048,256",
    "1,4,16,512|1024,256,128,32",
    "1,4,16,64,256,1024|256,32,256,64,32,256",
    "2,8,16,256|256,256,32,32",
    "8,16,32,256|512,512,256,32",
    "256|1024",
    "256|4096",
)
FASTTREE = ("1,4,256|8,256,32", "1,16,64|1024,256,32", "1,2,4,8,16,32,64,128,1024|16")
NO_LOSS = ("1|4096", "2|4096", "1,8|4000,16", "1,128|128,3", "1,128|4096,3", "1,32|16,512")
SUITES = {"codec": CODEC, "pat": PAT, "fasttree": FASTTREE, "no-loss": NO_LOSS}
