"""Scheduler: budgets, order, preemption and pages, with a model that only pretends."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bough.cache.pool import KVPool
from bough.cache.radix import RadixTree
from bough.engine.batch import Batch
from bough.engine.params import SamplingParams
from bough.engine.request import Request, Sample
from bough.engine.scheduler import Scheduler
from bough.spec import AttentionSpec


class PretendEngine:
    """Runs a scheduler; the next token of a path depends on the path and the sample alone."""

    def __init__(
        self, num_pages: int, page_size: int = 4, max_num_seqs: int = 99, budget: int = 999
    ) -> None:
        spec = AttentionSpec.mha(1, 4)
        self.pool = KVPool(spec, num_layers=1, num_pages=num_pages, page_size=page_size)
        self.tree = RadixTree(self.pool)
        self.max_num_seqs = max_num_seqs
        self.budget = budget
        self.scheduler = Scheduler(
            self.tree, self.pool, max_num_seqs=max_num_seqs, max_num_batched_tokens=budget
        )
        self.batches: list[Batch] = []

    def add(self, prompt: list[int], n: int = 1, max_tokens: int = 5) -> Request:
        request = Request(
            request_id=0,
            prompt=None,
            prompt_token_ids=prompt,
            params=SamplingParams(n=n),
            stop_token_ids=frozenset(),
            max_len=len(prompt) + max_tokens,
        )
        streams = np.random.default_rng(0).spawn(n)
        request.samples = [
            Sample(request=request, index=index, stream=stream, detokenizer=None)
            for index, stream in enumerate(streams)
        ]
        self.scheduler.add(request.samples)
        return request

    def step(self) -> Batch:
        batch = self.scheduler.schedule()
        self.check(batch)
        self.scheduler.complete(batch)
        for sample in batch.samples:
            sample.push((sum(sample.path_token_ids) + sample.index // 2) % 3)
        self.scheduler.retire()
        self.batches.append(batch)
        return batch

    def run(self, max_steps: int = 2000) -> None:
        while self.scheduler.has_unfinished:
            self.step()
            assert len(self.batches) < max_steps

    def check(self, batch: Batch) -> None:
        """Whatever is computed is computed once, behind what it needs."""
        assert 0 < batch.num_tokens <= self.budget
        assert len(batch.samples) <= self.max_num_seqs
        assert len({span.node for span in batch.spans}) == len(batch.spans)
        reached = {}
        for node, position, num_queries, _ in batch.spans:
            assert node.start <= position < position + num_queries <= node.end
            stored = node.start + node.num_computed
            assert position == (node.end - 1 if node.is_complete else stored)
            reached[node] = position + num_queries
        for node in reached:
            for above in list(node.path())[1:]:
                assert above.is_complete or reached.get(above) == above.end
        for sample, ending in zip(batch.samples, batch.sample_endings, strict=True):
            span = batch.spans[batch.endings[ending]]
            assert span.node is sample.node and reached[span.node] == sample.num_tokens

    def check_empty(self) -> None:
        """All pages come back."""
        self.tree.evict(self.pool.num_pages)
        assert self.pool.num_free == self.pool.num_pages
        assert self.tree.num_nodes == 0


def test_samples_of_a_prompt_store_and_compute_it_once() -> None:
    engine = PretendEngine(num_pages=50)
    engine.add(list(range(10)), n=6)
    batch = engine.step()
    assert (batch.num_tokens, len(batch.endings), len(batch.samples)) == (10, 1, 6)
    assert batch.num_readers == [6]
    assert engine.pool.num_pages - engine.pool.num_free == 3
    batch = engine.step()
    # One branch takes the two slots that the prompt's last page has left, the others a page each.
    assert (batch.num_tokens, len(batch.endings), len(batch.samples)) == (6, 6, 6)
    assert engine.pool.num_pages - engine.pool.num_free == 3 + 5
    engine.run()
    engine.check_empty()


def test_prompts_that_arrive_together_compute_their_shared_prefix_once() -> None:
    engine = PretendEngine(num_pages=50)
    shared = list(range(20))
    for tail in ([1, 2], [3], [], [1, 5, 6]):
        engine.add([*shared, *tail])
    batch = engine.step()
    assert batch.num_tokens == 20 + len([1]) + len([2]) + len([3]) + len([5, 6])
    assert len(batch.samples) == 4
    engine.run()
    engine.check_empty()


def test_a_prompt_in_the_cache_computes_its_last_token_only() -> None:
    engine = PretendEngine(num_pages=50)
    first = engine.add(list(range(9)))
    engine.run()
    second = engine.add(list(range(9)))
    assert engine.step().num_tokens == 1
    assert (first.num_cached_tokens, second.num_cached_tokens) == (0, 9)
    assert first.samples[0].token_ids[:1] == second.samples[0].token_ids
    assert engine.scheduler.num_cached_tokens == 9


def test_a_long_prompt_is_cut_to_the_budget() -> None:
    engine = PretendEngine(num_pages=50, budget=8)
    engine.add(list(range(20)))
    engine.add(list(range(30, 35)))
    assert [engine.step().num_tokens for _ in range(4)] == [8, 8, 8, 2]
    engine.run()


def test_samples_are_admitted_in_order_and_at_most_max_num_seqs() -> None:
    engine = PretendEngine(num_pages=50, max_num_seqs=2)
    requests = [engine.add([token, 7], max_tokens=3) for token in range(5)]
    order = []
    while engine.scheduler.has_unfinished:
        batch = engine.step()
        assert len(batch.samples) <= 2
        order += [
            requests.index(sample.request) for sample in batch.samples if len(sample.token_ids) == 1
        ]
    assert order == [0, 1, 2, 3, 4]


def test_the_newest_sample_is_preempted_and_takes_up_again_what_survived() -> None:
    engine = PretendEngine(num_pages=7, page_size=4)
    old = engine.add([1, 1, 1, 1], max_tokens=13)
    new = engine.add([2, 2, 2, 2], max_tokens=13)
    while not engine.scheduler.num_preemptions:
        engine.step()
    assert new.samples[0].node is None and old.samples[0].node is not None
    generated = list(new.samples[0].token_ids)
    engine.run()
    alone = PretendEngine(num_pages=7, page_size=4)
    same = alone.add([2, 2, 2, 2], max_tokens=13)
    alone.run()
    assert new.samples[0].token_ids == same.samples[0].token_ids
    assert new.samples[0].token_ids[: len(generated)] == generated
    num_computed = sum(batch.num_tokens for batch in engine.batches)
    assert num_computed < 2 * 16 + 16
    engine.check_empty()


@pytest.mark.parametrize("page_size", [1, 3, 4])
def test_a_pool_for_one_sample_serves_many(page_size: int) -> None:
    longest = 6 + 9 - 1
    engine = PretendEngine(num_pages=-(-longest // page_size), page_size=page_size)
    requests = [engine.add([1, 2, 3, 4, 5, token], n=3, max_tokens=9) for token in range(4)]
    engine.run()
    assert all(request.is_finished for request in requests)
    engine.check_empty()


def test_finished_samples_let_their_tokens_be_matched() -> None:
    engine = PretendEngine(num_pages=50)
    request = engine.add([1, 2, 3], max_tokens=6)
    engine.run()
    sample = request.samples[0]
    stored = engine.tree.match(sample.path_token_ids).length
    assert stored == sample.num_tokens - 1  # the last token was never computed


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_every_mixture_of_requests_ends_and_gives_all_pages_back(data: st.DataObject) -> None:
    page_size = data.draw(st.integers(1, 5), label="page_size")
    most = 24
    engine = PretendEngine(
        num_pages=-(-most // page_size) + data.draw(st.integers(0, 10), label="more pages"),
        page_size=page_size,
        max_num_seqs=data.draw(st.integers(1, 8), label="max_num_seqs"),
        budget=data.draw(st.integers(1, 30), label="budget"),
    )
    requests: list[Request] = []
    for _ in range(data.draw(st.integers(1, 12), label="events")):
        event = data.draw(st.sampled_from(["add", "add", "step", "step", "abort"]))
        unfinished = [request for request in requests if not request.is_finished]
        if event == "add":
            prompt = data.draw(st.lists(st.integers(0, 2), min_size=1, max_size=14))
            n, max_tokens = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 10))
            requests.append(engine.add(prompt, n=n, max_tokens=max_tokens))
        elif event == "step" and unfinished:
            engine.step()
        elif event == "abort" and unfinished:
            for sample in data.draw(st.sampled_from(unfinished)).samples:
                if not sample.is_finished:
                    sample.finish("abort")
            engine.scheduler.retire()
    engine.run()
    assert all(request.is_finished for request in requests)
    for request in requests:
        for sample in request.samples:
            assert sample.node is None
            if sample.finish_reason == "length":
                assert sample.num_tokens == request.max_len
    engine.check_empty()
