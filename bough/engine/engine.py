"""The engine: requests in, tokens and text out, one step at a time."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import count
from typing import NamedTuple

import numpy as np
from torch import Tensor

from bough.cache.radix import RadixTree
from bough.engine.batch import Batch
from bough.engine.config import EngineConfig
from bough.engine.detokenizer import Detokenizer
from bough.engine.drafts import PromptLookup
from bough.engine.executor import Executor, make_pool
from bough.engine.outputs import RequestOutput
from bough.engine.params import SamplingParams
from bough.engine.prompts import Prompt, TokenPrompt, read_prompt
from bough.engine.request import Request, Sample
from bough.engine.runner import Runner
from bough.engine.scheduler import Scheduler
from bough.engine.stats import EngineStats
from bough.engine.walk import walk_drafts
from bough.expect import expect
from bough.models.decoder import Decoder
from bough.models.tokenizer import Tokenizer


class Tokens(NamedTuple):
    """What samples took from a step.

    Attributes:
        num_taken: tokens of all samples.
        num_drafts: drafts that were computed.
        num_drawn_drafts: drafts that samples drew, each of them a step spared.
    """

    num_taken: int
    num_drafts: int
    num_drawn_drafts: int


class Engine:
    """Serves requests by one model; not safe for several threads.

    Args:
        decoder: the model, or rank 0's share of it, on the device of `config`.
        tokenizer: None for token ids only.
        config: the settings.
    """

    def __init__(self, decoder: Decoder, tokenizer: Tokenizer | None, config: EngineConfig) -> None:
        window, num_drafts = decoder.spec.window, config.num_draft_tokens
        has_trees = num_drafts == 0 or window is None
        expect(has_trees, "num_draft_tokens", f"0 with a window of {window}", num_drafts)
        self.config = config
        self.tokenizer = tokenizer
        self.model_config = decoder.config
        self.max_model_len = config.model_len(decoder.config)
        self._pool = make_pool(decoder, config)
        # Of all layers, on this rank.
        self._kv_token_bytes = self._pool.num_bytes // (self._pool.num_pages * config.page_size)
        self._tree = RadixTree(self._pool)
        self._scheduler = Scheduler(
            self._tree,
            self._pool,
            max_num_seqs=config.max_num_seqs,
            max_num_batched_tokens=config.max_num_batched_tokens,
            num_draft_tokens=config.num_draft_tokens,
        )
        self._ranks = decoder.ranks
        executor = Executor(decoder, self._pool, config.chosen_device)
        self._runner = Runner(executor, self._tree, self._ranks)
        self._requests: dict[int, Request] = {}
        self._request_ids = count()
        self._seeds = np.random.default_rng(config.seed)
        self._stats = EngineStats()

    @property
    def has_unfinished(self) -> bool:
        """Whether `step` has anything to do."""
        return self._scheduler.has_unfinished

    @property
    def num_pages(self) -> int:
        """Pages of KV."""
        return self._pool.num_pages

    @property
    def num_free_pages(self) -> int:
        """Pages that hold nothing; cached prefixes are not counted, though they may be evicted."""
        return self._pool.num_free

    @property
    def stats(self) -> EngineStats:
        """What was done so far."""
        return replace(
            self._stats,
            num_cached_tokens=self._scheduler.num_cached_tokens,
            num_preemptions=self._scheduler.num_preemptions,
            num_ranks=self._ranks.size,
            kv_token_bytes=self._kv_token_bytes,
        )

    def clear_cache(self) -> int:
        """Evict every prefix that no running sample needs; return the number of pages freed."""
        return self._tree.evict(self._pool.num_pages)

    def check_request(self, prompt: Prompt, params: SamplingParams) -> TokenPrompt:
        """Read a prompt and see that it can be served.

        Raises:
            ValueError: it cannot, whatever else is under way; the message says why, in one line.
        """
        expect(isinstance(params, SamplingParams), "params", "SamplingParams", repr(params))
        vocab_size = self.model_config.vocab_size
        read = read_prompt(prompt, self.tokenizer, vocab_size)
        expect(
            len(read.token_ids) < self.max_model_len,
            "prompt",
            f"at most {self.max_model_len - 1} tokens, the context less one",
            len(read.token_ids),
        )
        has_text = self.tokenizer is not None or not params.stop_strings
        expect(has_text, "stop", "None for a model without tokenizer", repr(params.stop))
        is_in_range = params.logprobs is None or params.logprobs <= vocab_size
        expect(is_in_range, "logprobs", f"at most {vocab_size}", params.logprobs)
        # The newest token is never stored.
        most, max_len = self._pool.num_pages * self._pool.page_size + 1, self._max_len(read, params)
        expectation = f"at most {most} tokens together for {self._pool.num_pages} pages of KV"
        expect(max_len <= most, "prompt and max_tokens", expectation, max_len)
        return read

    def add_request(self, prompt: Prompt, params: SamplingParams | None = None) -> int:
        """Let a request wait for the next step.

        Args:
            prompt: text, token ids, or a mapping with `prompt` or `prompt_token_ids`, and
                `cache_salt` where it is to share with requests of the same salt only.
            params: how to sample; the defaults when None.

        Returns:
            The request's id.

        Raises:
            ValueError: the request cannot be served.
        """
        params = SamplingParams() if params is None else params
        return self._enqueue(self.check_request(prompt, params), params)

    def step(self) -> list[RequestOutput]:
        """Compute one batch.

        Returns:
            The requests that have new tokens, each with all it has so far; [] when idle.
        """
        return [request.output() for request in self.advance()]

    def abort(self, request_id: int) -> RequestOutput | None:
        """End a request now and give its pages back; None where it is not under way."""
        request = self._requests.pop(request_id, None)
        if request is None:
            return None
        for sample in request.samples:
            if not sample.is_finished:
                sample.finish("abort")
        self._scheduler.retire()
        return request.output()

    def advance(self) -> list[Request]:
        """Schedule, run, sample: the step itself, for callers that need no copy of the outputs.

        Raises:
            ChildProcessError: a rank is gone; nothing more can be computed.
        """
        if not self.has_unfinished:
            return []
        started = time.perf_counter()
        batch = self._scheduler.schedule()
        with self._ranks.step():
            logits = self._runner.run(batch)
            self._scheduler.complete(batch)
            tokens = self._sample(batch, logits)
        self._scheduler.retire()
        touched = list(dict.fromkeys(sample.request for sample in batch.samples))
        for request in touched:
            if request.is_finished:
                del self._requests[request.request_id]
        self._record(batch, tokens, time.perf_counter() - started)
        return touched

    def _enqueue(self, read: TokenPrompt, params: SamplingParams) -> int:
        """Let a checked request wait; return its id."""
        eos_token_ids = () if params.ignore_eos else self.model_config.eos_token_ids
        request = Request(
            request_id=next(self._request_ids),
            prompt=read.text,
            prompt_token_ids=read.token_ids,
            params=params,
            stop_token_ids=frozenset((*eos_token_ids, *(params.stop_token_ids or ()))),
            max_len=self._max_len(read, params),
            salt=read.salt,
        )
        seed = int(self._seeds.integers(2**63)) if params.seed is None else params.seed
        request.samples = [self._new_sample(request, index, seed) for index in range(params.n)]
        self._requests[request.request_id] = request
        self._scheduler.add(request.samples)
        return request.request_id

    def _new_sample(self, request: Request, index: int, seed: int) -> Sample:
        params, detokenizer = request.params, None
        if self.tokenizer is not None:
            detokenizer = Detokenizer(
                self.tokenizer,
                request.prompt_token_ids,
                params.stop_strings,
                params.skip_special_tokens,
            )
        stream = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(index,)))
        lookup = PromptLookup() if self.config.num_draft_tokens else None
        return Sample(
            request=request, index=index, stream=stream, detokenizer=detokenizer, lookup=lookup
        )

    def _max_len(self, read: TokenPrompt, params: SamplingParams) -> int:
        """Most tokens of prompt and sample together."""
        if params.max_tokens is None:
            return self.max_model_len
        return min(len(read.token_ids) + params.max_tokens, self.max_model_len)

    def _sample(self, batch: Batch, logits: Tensor) -> Tokens:
        """Give each of the batch's samples its next token, and those that its drafts foretold."""
        if not batch.samples:
            return Tokens(0, 0, 0)
        self._check_logits(batch, logits[batch.sample_rows])
        drawn = walk_drafts(batch, logits)
        num_drafts = sum(len(sample.draft.token_ids) for sample in batch.samples)
        for sample, drafts in drawn.items():
            self._scheduler.keep(sample, drafts)
        num_drawn = sum(len(drafts) for drafts in drawn.values())
        return Tokens(len(batch.samples) + num_drawn, num_drafts, num_drawn)

    def _check_logits(self, batch: Batch, logits: Tensor) -> None:
        """Refuse to sample from what broken weights give; -inf for a token is no harm."""
        greatest = logits.amax(dim=-1)
        if not bool(greatest.isfinite().all()):
            row = int(greatest.isfinite().int().argmin())
            sample, step = batch.samples[row], self._stats.num_steps + 1
            name = f"logits of request {sample.request.request_id} in step {step}"
            expect(False, name, "finite, as sound weights make them", float(greatest[row]))

    def _record(self, batch: Batch, tokens: Tokens, seconds: float) -> None:
        stats, forest, spec = self._stats, self._runner.forest, self._pool.spec
        token_bytes = self._kv_token_bytes
        self._stats = replace(
            stats,
            num_steps=stats.num_steps + 1,
            num_generated_tokens=stats.num_generated_tokens + tokens.num_taken,
            num_draft_tokens=stats.num_draft_tokens + tokens.num_drafts,
            num_drawn_drafts=stats.num_drawn_drafts + tokens.num_drawn_drafts,
            num_computed_tokens=stats.num_computed_tokens + batch.num_tokens,
            seconds=stats.seconds + seconds,
            peak_num_nodes=max(stats.peak_num_nodes, int((forest.node_len > 0).sum())),
            peak_unique_tokens=max(stats.peak_unique_tokens, forest.num_unique_tokens),
            kv_bytes_read=stats.kv_bytes_read + token_bytes * self._runner.num_tokens_read,
            kv_bytes_apart=stats.kv_bytes_apart + token_bytes * batch.num_tokens_apart(spec.window),
        )
