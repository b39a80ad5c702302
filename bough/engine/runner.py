"""From a batch of spans to logits: tells every rank the step, and runs this one's share."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from torch import Tensor

from bough.cache.node import QuerySpan
from bough.cache.radix import RadixTree
from bough.engine.batch import Batch
from bough.engine.executor import Executor
from bough.engine.steps import Step, StepSender
from bough.forest import Forest
from bough.parallel import Ranks


class Runner:
    """Runs batches on all ranks; rank 0 has it, beside the tree.

    Args:
        executor: of this rank.
        tree: where the spans' nodes lie.
        ranks: those that run each step.
    """

    def __init__(self, executor: Executor, tree: RadixTree, ranks: Ranks) -> None:
        self._executor = executor
        self._tree = tree
        self._sender = StepSender(ranks)

    def run(self, batch: Batch) -> Tensor:
        """Compute a batch and store its KV.

        Returns:
            [num_rows, vocab_size] fp32 logits, those of `Batch.logit_tokens`.
        """
        forest = self._tree.forest(batch.spans)
        slots = _slots(batch.spans, forest)
        step = Step(
            forest=forest, token_ids=_token_ids(batch.spans), slots=slots, moves=batch.moves
        )
        self._sender.send(step)
        hidden = self._executor.run(step)
        return self._executor.logits(hidden, batch.logit_tokens(forest.query_indptr))

    @property
    def forest(self) -> Forest:
        """The forest of the last step."""
        return self._executor.plan.forest

    @property
    def num_tokens_read(self) -> int:
        """KV tokens that the last step's tiles read in each layer, each counted once per tile."""
        return self._executor.plan.num_tokens_read


def _token_ids(spans: list[QuerySpan]) -> npt.NDArray[np.int64]:
    """[num_tokens] the tokens of all spans."""
    token_ids: list[int] = []
    for span in spans:
        begin = span.position - span.node.start
        token_ids += span.node.tokens[begin : begin + span.num_queries]
    return np.array(token_ids, dtype=np.int64)


def _slots(spans: list[QuerySpan], forest: Forest) -> npt.NDArray[np.int64]:
    """[num_tokens] where the KV of each token goes, -1 where it is stored already."""
    node = forest.query_node
    offset = forest.query_position - forest.node_start[node] + forest.node_first_slot[node]
    at = forest.node_page_start[node] + offset // forest.page_size
    slots = forest.page_indices[at].astype(np.int64) * forest.page_size + offset % forest.page_size
    num_stored = [span.node.start + span.node.num_computed for span in spans]
    is_stored = forest.query_position < np.repeat(num_stored, np.diff(forest.query_indptr))
    return np.where(is_stored, -1, slots)
