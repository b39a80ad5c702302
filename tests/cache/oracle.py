"""What a radix tree is to hold, worked out from its nodes alone and in the plainest way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from bough.cache import KVPool, QuerySpan, RadixNode, RadixTree
from bough.forest import Forest
from bough.spec import AttentionSpec

Prefix = tuple[str, tuple[int, ...]]  # a salt, and token ids from position 0 on
NodeKey = tuple[tuple[int, int, int, tuple[int, ...]], ...]


def make_tree(num_pages: int, page_size: int) -> tuple[KVPool, RadixTree]:
    spec = AttentionSpec.mqa(1, 1)
    pool = KVPool(spec, num_layers=1, num_pages=num_pages, page_size=page_size)
    return pool, RadixTree(pool)


def compute(node: RadixNode) -> RadixNode:
    """Mark the whole path of `node` as computed."""
    for upper in node.path():
        upper.num_computed = len(upper.tokens)
    return node


def grow(tree: RadixTree, node: RadixNode, tokens: list[int]) -> RadixNode:
    """Fork an open leaf with computed tokens."""
    leaf = tree.fork(node)
    for token in tokens:
        tree.append(leaf, token)
    return compute(leaf)


def path_tokens(node: RadixNode) -> tuple[int, ...]:
    path = reversed(list(node.path()))
    return tuple(token for upper in path for token in upper.tokens)


def prefixes(salt: str, tokens: Sequence[int]) -> set[Prefix]:
    return {(salt, tuple(tokens[:length])) for length in range(1, len(tokens) + 1)}


def slots(node: RadixNode, page_size: int) -> list[tuple[int, int]]:
    """The (page, slot) of each token."""
    places = (divmod(node.first_slot + token, page_size) for token in range(len(node.tokens)))
    return [(node.pages[page], slot) for page, slot in places]


def node_prefixes(tree: RadixTree) -> dict[Prefix, bool]:
    """Every prefix that closed nodes spell, and whether its last token is computed."""
    found = {}
    for node in tree.nodes():
        if not node.is_open:
            path = path_tokens(node)
            for token in range(len(node.tokens)):
                prefix = (node.salt, path[: node.start + token + 1])
                found[prefix] = token < node.num_computed
    return found


def num_pages_of(nodes: Iterable[RadixNode]) -> int:
    return len({page for node in nodes for page in node.pages})


def fingerprint(tree: RadixTree, pool: KVPool) -> tuple[object, ...]:
    """All that a caller could notice of the tree's state."""
    nodes = Counter(
        (node.salt, path_tokens(node), tuple(node.pages), node.first_slot, node.num_computed)
        for node in tree.nodes()
        for _ in range(1 + node.num_locks)
    )
    return nodes, pool.num_free, tree.num_nodes, tree.num_evictable_pages


def evicted_nodes(tree: RadixTree, num_pages: int, used: dict[Prefix, int]) -> list[Prefix]:
    """The nodes that `evict(num_pages)` is to remove, given when each prefix was last used."""
    nodes = list(tree.nodes())
    num_children = Counter(id(node.parent) for node in nodes)
    holders = Counter(page for node in nodes for page in node.pages)
    unlocked = {node for node in nodes if node.num_locks == 0}
    removed: list[Prefix] = []
    num_freed = 0
    while num_freed < num_pages:
        childless = [node for node in unlocked if num_children[id(node)] == 0]
        if not childless:
            break
        oldest = min(childless, key=lambda node: used[node.salt, path_tokens(node)])
        unlocked.remove(oldest)
        num_children[id(oldest.parent)] -= 1
        holders.subtract(oldest.pages)
        num_freed += sum(holders[page] == 0 for page in oldest.pages)
        removed.append((oldest.salt, path_tokens(oldest)))
    return removed


def forest_from_nodes(tree: RadixTree, page_size: int, spans: Sequence[QuerySpan]) -> Forest:
    """Build what `tree.forest(spans)` is to describe from scratch."""
    locked = [node for node in tree.nodes() if node.num_locks]
    index = {node: at for at, node in enumerate(locked)}
    queries = [
        (index[span.node], span.position + query)
        for span in spans
        for query in range(span.num_queries)
    ]
    query_indptr = [0]
    for span in spans:
        query_indptr.append(query_indptr[-1] + span.num_queries)
    return Forest.from_nodes(
        page_size=page_size,
        node_parent=[index.get(node.parent, -1) for node in locked],
        node_len=[len(node.tokens) for node in locked],
        node_pages=[node.pages for node in locked],
        node_first_slot=[node.first_slot for node in locked],
        query_node=[node for node, _ in queries],
        query_position=[position for _, position in queries],
        query_indptr=query_indptr,
    )


def describe(forest: Forest) -> tuple[object, ...]:
    """All that a forest says, whatever the order of its nodes; dead rows say nothing."""
    keys: dict[int, NodeKey] = {-1: ()}

    def key(node: int) -> NodeKey:
        if node not in keys:
            begin = int(forest.node_page_start[node])
            pages = forest.page_indices[begin : begin + forest.node_num_pages[node]]
            own = (forest.node_start, forest.node_len, forest.node_first_slot)
            start, length, first_slot = (int(values[node]) for values in own)
            above = key(int(forest.node_parent[node]))
            keys[node] = (*above, (start, length, first_slot, tuple(pages.tolist())))
        return keys[node]

    queries = [
        (key(int(node)), int(position))
        for node, position in zip(forest.query_node, forest.query_position, strict=True)
    ]
    live = [key(node) for node in range(forest.num_nodes) if forest.node_num_pages[node]]
    return forest.page_size, sorted(live), queries, forest.query_indptr.tolist()
