"""What the engine hands back: one output a request, one part of it a sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FinishReason = Literal["stop", "length", "abort"]


@dataclass(frozen=True, kw_only=True)
class SampleOutput:
    """One sample so far.

    Args:
        index: which of the request's `n` samples.
        token_ids: generated tokens, the one that ended the sample included.
        text: text of the tokens before any stop string; None where the model has no tokenizer.
            Text that was handed out never changes; what may yet become part of a stop string or
            of an unfinished character is held back.
        logprobs: for each generated token its natural log probability and those of the most likely
            tokens, by token id, from the logits before any sampling parameter; None unless asked.
        finish_reason: `stop` (end of text, stop token or stop string), `length` (`max_tokens` or
            the context is full), `abort`, or None while the sample runs.
    """

    index: int
    token_ids: list[int]
    text: str | None
    logprobs: list[dict[int, float]] | None
    finish_reason: FinishReason | None


@dataclass(frozen=True, kw_only=True)
class RequestOutput:
    """One request so far: everything since its start, not only what is new.

    Args:
        request_id: the id that `add_request` returned.
        prompt: the prompt as text; None where it came as token ids.
        prompt_token_ids: the prompt's tokens.
        outputs: the samples, in order of their index.
        num_cached_tokens: prompt tokens whose KV was stored when the request was admitted.
        is_finished: whether every sample has a finish reason.
    """

    request_id: int
    prompt: str | None
    prompt_token_ids: list[int]
    outputs: list[SampleOutput]
    num_cached_tokens: int
    is_finished: bool
