"""What other ranks hear of a step is what rank 0 computes, and little more than what changed."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np

from bough.cache import KVPool, QuerySpan, RadixNode, RadixTree
from bough.engine.steps import Step, StepReceiver, StepSender
from bough.forest import Forest
from bough.parallel import Ranks
from bough.spec import AttentionSpec

PAGE_SIZE = 4


class Wire(Ranks):
    """One of two ranks in one process: what is sent waits here as bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.size = 2
        self.sent = b""

    def send(self, message: object) -> None:
        self.sent = pickle.dumps(message)

    def receive(self) -> Any:
        return pickle.loads(self.sent)


def pages_of(forest: Forest) -> list[list[int]]:
    ends = forest.node_page_start + forest.node_num_pages
    both = zip(forest.node_page_start, ends, strict=True)
    return [forest.page_indices[begin:end].tolist() for begin, end in both]


def grow(tree: RadixTree, leaf: RadixNode) -> QuerySpan:
    tree.append(leaf, 7)
    return QuerySpan(leaf, leaf.end - 1, 1)


def test_the_others_see_the_forest_of_every_step() -> None:
    spec = AttentionSpec.gqa(2, 1, 8)
    tree = RadixTree(KVPool(spec, num_layers=1, num_pages=4000, page_size=PAGE_SIZE))
    wire = Wire()
    sender, receiver = StepSender(wire), StepReceiver(wire)
    leaves: list[RadixNode] = []
    sizes = []
    for step in range(60):
        if step % 20 == 0:  # a request comes, and later one goes
            prompt = tree.insert([*range(2000), 5000 + step])
            prompt.num_computed = len(prompt.tokens)
            leaves += [tree.fork(prompt), tree.fork(prompt)]
        if step == 50:
            tree.close(leaves.pop(0))
        forest = tree.forest([grow(tree, leaf) for leaf in leaves])
        ids = np.arange(len(leaves))
        sender.send(Step(forest=forest, token_ids=ids, slots=ids + 1))
        sizes.append(len(wire.sent))
        heard = receiver.receive()
        assert heard is not None
        assert pages_of(heard.forest) == pages_of(forest)
        assert heard.forest.node_len.tolist() == forest.node_len.tolist()
        assert heard.forest.query_position.tolist() == forest.query_position.tolist()
        assert heard.slots.tolist() == [*range(1, len(leaves) + 1)]
    assert max(sizes) > 3000 > np.median(sizes)


def test_the_end_is_heard() -> None:
    wire = Wire()
    wire.send(None)
    assert StepReceiver(wire).receive() is None
