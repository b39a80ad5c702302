"""Which samples run, and on which pages: admission, growth, preemption. Nothing runs here."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from bough.cache.pool import KVPool, PoolExhausted, SlotMove
from bough.cache.radix import RadixTree
from bough.engine.batch import Batch, BatchBuilder
from bough.engine.drafts import Draft
from bough.engine.request import Sample


class Scheduler:
    """Keeps samples in order of arrival: those that run arrived before those that wait.

    A running sample is a locked path of the tree. It begins as a node that it may share with any
    other sample of the same tokens; from its first generated token on it has an open leaf of its
    own. When the pool is short, the newest running sample gives its path back to the tree and
    waits again, first in line; what of the path survives until then is not computed again.

    Args:
        tree: where the paths lie; nobody else locks nodes of it.
        pool: the tree's pool.
        max_num_seqs: most samples that run at once.
        max_num_batched_tokens: most tokens that one step computes.
        num_draft_tokens: most guesses of a sample in a step.
    """

    def __init__(
        self,
        tree: RadixTree,
        pool: KVPool,
        *,
        max_num_seqs: int,
        max_num_batched_tokens: int,
        num_draft_tokens: int = 0,
    ) -> None:
        self._tree = tree
        self._pool = pool
        self._max_num_seqs = max_num_seqs
        self._max_num_batched_tokens = max_num_batched_tokens
        self._num_draft_tokens = num_draft_tokens
        self._moves: list[SlotMove] = []
        self._waiting: deque[Sample] = deque()
        self._running: list[Sample] = []
        self._num_preemptions = 0
        self._num_cached_tokens = 0

    @property
    def has_unfinished(self) -> bool:
        return bool(self._waiting or self._running)

    @property
    def num_preemptions(self) -> int:
        """Times that a running sample had to wait again."""
        return self._num_preemptions

    @property
    def num_cached_tokens(self) -> int:
        """Prompt tokens of all requests whose KV was stored when they were admitted."""
        return self._num_cached_tokens

    def add(self, samples: Sequence[Sample]) -> None:
        """Let new samples wait."""
        self._waiting.extend(samples)

    def schedule(self) -> Batch:
        """Choose the next step; while any sample is unfinished, it has tokens to compute."""
        if self._grow() or not self._running:
            self._admit()
        if all(sample.is_branched for sample in self._running):
            self._guess()
        builder = BatchBuilder(self._max_num_batched_tokens)
        for sample in self._running:
            builder.add(sample)
        moves, self._moves = self._moves, []
        return builder.build(moves)

    def complete(self, batch: Batch) -> None:
        """Take note that the KV of the batch's tokens is stored."""
        for span in batch.spans:
            end = span.position + span.num_queries - span.node.start
            span.node.num_computed = max(span.node.num_computed, end)

    def keep(self, sample: Sample, drawn: Sequence[int]) -> None:
        """Keep the drafts that a sample drew, ascending, and drop its others."""
        num_drafts = len(sample.draft.token_ids)
        if num_drafts:
            assert sample.node is not None
            self._moves += self._tree.keep(sample.node, num_drafts, drawn)
            sample.draft = Draft()

    def retire(self) -> None:
        """Give back the paths of the samples that are finished."""
        for sample in self._running:
            if sample.is_finished:
                self._give_back(sample)
        self._running = [sample for sample in self._running if not sample.is_finished]
        self._waiting = deque(sample for sample in self._waiting if not sample.is_finished)

    def _grow(self) -> bool:
        """Put the newest token of every running sample into the tree.

        Returns:
            Whether there were pages for all of them, with nobody preempted.
        """
        num_before = self._num_preemptions
        num_grown = 0
        while num_grown < len(self._running):
            try:
                self._append_newest(self._running[num_grown])
                num_grown += 1
            except PoolExhausted:
                self._preempt_newest()
        return self._num_preemptions == num_before

    def _guess(self) -> None:
        """Put drafts behind the newest tokens, in steps of those alone.

        They share what the step's budget has left, and leave every sample a page to grow into.
        """
        num_samples = max(1, len(self._running))
        most = min(self._num_draft_tokens, self._max_num_batched_tokens // num_samples - 1)
        for sample in self._running if most > 0 else ():
            draft = sample.guess(most)
            num_pages = -(-len(draft.token_ids) // self._pool.page_size) + num_samples
            if draft.token_ids and num_pages <= self._pool.num_free:
                assert sample.node is not None
                self._tree.append(sample.node, *draft.token_ids)
                sample.draft = draft

    def _append_newest(self, sample: Sample) -> None:
        assert sample.node is not None
        if sample.node.end == sample.num_tokens:
            return
        if not sample.is_branched:
            prompt_end = sample.node
            sample.node, sample.is_branched = self._tree.fork(prompt_end), True
            self._tree.release(prompt_end)
        self._tree.append(sample.node, sample.token_ids[-1])

    def _preempt_newest(self) -> None:
        sample = self._running.pop()
        self._give_back(sample)
        self._waiting.appendleft(sample)
        self._num_preemptions += 1

    def _admit(self) -> None:
        """Let samples run in order of arrival as long as there is room."""
        while self._waiting and len(self._running) < self._max_num_seqs:
            sample = self._waiting[0]
            if self._running and not self._has_room(sample):
                return
            try:
                sample.node = self._tree.insert(sample.path_token_ids, sample.request.salt)
            except PoolExhausted:
                # With nothing locked whatever was accepted fits, so there is an error in here.
                if not self._running:
                    raise
                return
            self._running.append(self._waiting.popleft())
            self._count_cached_tokens(sample)

    def _has_room(self, sample: Sample) -> bool:
        """Whether, beside its own pages, one is left for each running sample to grow into.

        Without them the new sample would be preempted as soon as the others grow.
        """
        request = sample.request
        num_new = sample.num_tokens - self._tree.match(sample.path_token_ids, request.salt).length
        num_pages = -(-num_new // self._pool.page_size) + 1
        num_available = self._pool.num_free + self._tree.num_evictable_pages
        return num_pages + len(self._running) <= num_available

    def _count_cached_tokens(self, sample: Sample) -> None:
        """Note what was computed of a request's prompt when its first sample was admitted."""
        request = sample.request
        if request.num_cached_tokens is not None:
            return
        request.num_cached_tokens = 0
        node = sample.node
        while node is not None:
            request.num_cached_tokens += node.num_computed
            node = node.parent
        self._num_cached_tokens += request.num_cached_tokens

    def _give_back(self, sample: Sample) -> None:
        assert sample.node is not None
        if sample.is_branched:
            self._tree.close(sample.node)
        else:
            self._tree.release(sample.node)
        sample.node, sample.is_branched = None, False
