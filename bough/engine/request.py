"""A request and its samples: what was asked, and what each branch has so far."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from bough.cache.radix import RadixNode
from bough.engine.detokenizer import Detokenizer
from bough.engine.drafts import Draft, PromptLookup
from bough.engine.outputs import FinishReason, RequestOutput, SampleOutput
from bough.engine.params import SamplingParams
from bough.engine.sampler import Draw


@dataclass(eq=False, kw_only=True)
class Request:
    """One prompt and how it is sampled.

    Args:
        request_id: unique within its engine.
        prompt: the prompt as text; None where it came as token ids.
        prompt_token_ids: the prompt's tokens, at least one.
        params: how it is sampled.
        stop_token_ids: every token that ends a sample, the model's end of text included.
        max_len: most tokens of prompt and sample together.
        salt: requests of different salts share nothing.
        num_cached_tokens: prompt tokens whose KV was stored when the request was admitted; None
            while it waits for the first time.
        samples: the request's `n` samples.
    """

    request_id: int
    prompt: str | None
    prompt_token_ids: list[int]
    params: SamplingParams
    stop_token_ids: frozenset[int]
    max_len: int
    salt: str = ""
    num_cached_tokens: int | None = None
    samples: list[Sample] = field(default_factory=list)

    @property
    def is_finished(self) -> bool:
        return all(sample.is_finished for sample in self.samples)

    def output(self) -> RequestOutput:
        """Copy what the request has so far."""
        return RequestOutput(
            request_id=self.request_id,
            prompt=self.prompt,
            prompt_token_ids=list(self.prompt_token_ids),
            outputs=[sample.output() for sample in self.samples],
            num_cached_tokens=self.num_cached_tokens or 0,
            is_finished=self.is_finished,
        )


@dataclass(eq=False, kw_only=True)
class Sample:
    """One continuation of a request's prompt: a path in the tree, and the unit of scheduling.

    Args:
        request: the request it belongs to.
        index: which of the request's samples.
        stream: the random numbers of this sample alone, one a token.
        detokenizer: its text; None where the model has no tokenizer.
        token_ids: generated tokens.
        logprobs: one dict a generated token, as in `SampleOutput`.
        finish_reason: None while it runs or waits.
        node: the locked end of its path; None while it waits.
        is_branched: whether `node` is an open leaf of the sample's own.
        lookup: where its drafts come from; None where there are none.
        draft: guesses that stand behind its newest token in this step.
    """

    request: Request
    index: int
    stream: np.random.Generator
    detokenizer: Detokenizer | None
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[dict[int, float]] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    node: RadixNode | None = None
    is_branched: bool = False
    lookup: PromptLookup | None = None
    draft: Draft = field(default_factory=Draft)

    @property
    def is_finished(self) -> bool:
        return self.finish_reason is not None

    @property
    def num_tokens(self) -> int:
        """Tokens of prompt and sample together."""
        return len(self.request.prompt_token_ids) + len(self.token_ids)

    @property
    def path_token_ids(self) -> list[int]:
        """The prompt's tokens, then the sample's."""
        return self.request.prompt_token_ids + self.token_ids

    def guess(self, most: int) -> Draft:
        """Guess at most so many of its next tokens, all but the last that it may have."""
        most = min(most, self.request.max_len - self.num_tokens - 1)
        if self.lookup is None or most < 1:
            return Draft()
        self.lookup.follow(self.request.prompt_token_ids, self.token_ids)
        return self.lookup.draft(most)

    def next_draw(self) -> Draw:
        """Say what decides the next token, and move the random stream on by what that takes."""
        params = self.request.params
        return Draw(
            params=params,
            uniform=0.0 if params.is_greedy else self.stream.random(),
            seen_token_ids=self.path_token_ids if params.repetition_penalty != 1 else (),
        )

    def push(self, token_id: int) -> None:
        """Take the next token, and finish where it ends the sample."""
        self.token_ids.append(token_id)
        if token_id in self.request.stop_token_ids:
            self.finish("stop")
        elif self.detokenizer is not None and self.detokenizer.push(token_id):
            self.finish_reason = "stop"
        elif self.num_tokens >= self.request.max_len:
            self.finish("length")

    def finish(self, reason: FinishReason) -> None:
        """End the sample and give out the text that was held back."""
        self.finish_reason = reason
        if self.detokenizer is not None and self.detokenizer.finish() and reason == "length":
            self.finish_reason = "stop"

    def output(self) -> SampleOutput:
        """Copy what the sample has so far."""
        return SampleOutput(
            index=self.index,
            token_ids=list(self.token_ids),
            text=None if self.detokenizer is None else self.detokenizer.text,
            logprobs=list(self.logprobs) if self.request.params.logprobs is not None else None,
            finish_reason=self.finish_reason,
        )
