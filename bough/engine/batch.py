"""One step's work: which tokens of which nodes are computed, and which samples go on from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from bough.cache.node import QuerySpan, RadixNode
from bough.cache.pool import SlotMove
from bough.engine.request import Sample


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """What one step computes.

    Args:
        spans: tokens of nodes, each node at most once; those whose KV is not stored yet, or the
            last token of a path that is complete but whose logits are wanted.
        num_readers: [num_spans] samples whose path goes as far as this span in this step;
            request by request, each would read the path for itself.
        endings: spans at whose newest token logits are wanted, and at all drafts behind it.
        samples: samples that take a token from this step.
        sample_endings: [num_samples] index in `endings` of each sample's span.
        moves: KV that is to be moved before anything is computed.
    """

    spans: list[QuerySpan]
    num_readers: list[int]
    endings: list[int]
    samples: list[Sample]
    sample_endings: list[int]
    moves: Sequence[SlotMove] = ()

    @property
    def sample_rows(self) -> list[int]:
        """[num_samples] row of the logits behind each sample's newest token; its drafts' follow."""
        counts = [1 + len(self.spans[ending].draft_parents) for ending in self.endings]
        first = list(accumulate(counts, initial=0))
        return [first[ending] for ending in self.sample_endings]

    def logit_tokens(self, query_indptr: npt.NDArray[np.integer]) -> npt.NDArray[np.integer]:
        """[num_rows] tokens of the step whose logits are wanted.

        Args:
            query_indptr: [num_spans + 1] where each span's tokens begin.
        """
        ends = query_indptr[1:][self.endings]
        counts = [1 + len(self.spans[ending].draft_parents) for ending in self.endings]
        parts = [np.arange(end - num, end) for end, num in zip(ends, counts, strict=True)]
        return np.concatenate([np.zeros(0, dtype=np.int64), *parts])

    @property
    def num_tokens(self) -> int:
        """Tokens that go through the model."""
        return sum(span.num_queries for span in self.spans)

    def num_tokens_apart(self, window: int | None) -> int:
        """KV tokens that attention would read, if each sample read its path for itself."""
        total = 0
        for span, readers in zip(self.spans, self.num_readers, strict=True):
            num_queries = span.num_queries
            seen = span.position + num_queries
            total += readers * (seen if window is None else min(seen, window + num_queries - 1))
        return total


class BatchBuilder:
    """Collects the uncomputed tokens on the samples' paths, each once, within a budget.

    Args:
        max_num_tokens: most tokens of the step.
    """

    def __init__(self, max_num_tokens: int) -> None:
        self._num_left = max_num_tokens
        self._spans: list[QuerySpan] = []
        self._span_of: dict[RadixNode, int] = {}
        self._num_readers: list[int] = []
        self._ending_of: dict[int, int] = {}
        self._samples: list[Sample] = []
        self._sample_endings: list[int] = []

    def add(self, sample: Sample) -> None:
        """Take as much of a running sample's path as the budget allows."""
        path = _path_to_compute(sample)
        is_covered = all(self._cover(node, sample.draft.parents) for node in path)
        taken = [self._span_of[node] for node in path if node in self._span_of]
        if taken:
            self._num_readers[taken[-1]] += 1
        if is_covered:
            ending = self._ending_of.setdefault(taken[-1], len(self._ending_of))
            self._samples.append(sample)
            self._sample_endings.append(ending)

    def build(self, moves: Sequence[SlotMove] = ()) -> Batch:
        """Return what was collected.

        Args:
            moves: KV to be moved first.
        """
        return Batch(
            spans=self._spans,
            num_readers=self._num_readers,
            endings=list(self._ending_of),
            samples=self._samples,
            sample_endings=self._sample_endings,
            moves=moves,
        )

    def _cover(self, node: RadixNode, draft_parents: Sequence[int]) -> bool:
        """Take what is uncomputed of a node, or its last token; return whether that was all.

        Samples with drafts have one token to compute before them, and the budget has room for all.
        """
        if node not in self._span_of:
            first = min(node.start + node.num_computed, node.end - 1)
            num_queries = min(node.end - first, self._num_left)
            if num_queries == 0:
                return False
            self._num_left -= num_queries
            self._span_of[node] = len(self._spans)
            self._spans.append(QuerySpan(node, first, num_queries, draft_parents))
            self._num_readers.append(0)
        span = self._spans[self._span_of[node]]
        return span.position + span.num_queries == node.end


def _path_to_compute(sample: Sample) -> list[RadixNode]:
    """Nodes to compute for a sample's next token, from the top down; its own node is the last."""
    assert sample.node is not None
    if sample.is_branched:  # its leaf was opened when all above it was computed
        return [sample.node]
    above = [node for node in sample.node.path() if not node.is_complete]
    return [*above[::-1], *([sample.node] if sample.node.is_complete else [])]
