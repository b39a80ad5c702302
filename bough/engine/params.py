"""How one request is sampled: names, defaults and meanings as vLLM's users know them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """Sampling of one request.

    Args:
        n: samples of the prompt; they are branches of one tree.
        temperature: divisor of the logits; 0 takes the most likely token.
        top_p: keep the most likely tokens until their probabilities reach this sum.
        top_k: keep this many most likely tokens; 0 or -1 keeps all.
        min_p: keep tokens at least this likely relative to the most likely one.
        repetition_penalty: positive logits of tokens seen in the prompt or generated before are
            divided by it, negative ones multiplied (arXiv 1909.05858, section 4.1).
        max_tokens: most tokens to generate; None for as many as the context holds.
        stop: strings that end a sample; the text ends before them.
        stop_token_ids: tokens that end a sample, beside the model's end of text.
        ignore_eos: whether to go on after the model's end of text.
        seed: start of the samples' random streams; None for a fresh one.
        logprobs: how many of the most likely tokens to report at each position, beside the chosen
            one; None for no report.
        skip_special_tokens: whether special tokens are left out of the text.

    Raises:
        ValueError: a field is out of range.
    """

    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    max_tokens: int | None = 16
    stop: str | Sequence[str] | None = None
    stop_token_ids: Sequence[int] | None = None
    ignore_eos: bool = False
    seed: int | None = None
    logprobs: int | None = None
    skip_special_tokens: bool = True

    def __post_init__(self) -> None:
        _expect(_is_int(self.n, 1), "n", "a whole number of at least 1", self.n)
        _expect(_is_number(self.temperature, 0), "temperature", "at least 0", self.temperature)
        is_share = _is_number(self.top_p, 0) and 0 < self.top_p <= 1
        _expect(is_share, "top_p", "above 0 and at most 1", self.top_p)
        _expect(_is_int(self.top_k, -1), "top_k", "a whole number of at least -1", self.top_k)
        is_share = _is_number(self.min_p, 0) and self.min_p <= 1
        _expect(is_share, "min_p", "from 0 to 1", self.min_p)
        is_positive = _is_number(self.repetition_penalty, 0) and self.repetition_penalty > 0
        _expect(is_positive, "repetition_penalty", "positive", self.repetition_penalty)
        for name, least in (("max_tokens", 1), ("seed", 0), ("logprobs", 0)):
            value = getattr(self, name)
            is_met = value is None or _is_int(value, least)
            _expect(is_met, name, f"None or a whole number of at least {least}", value)
        for name in ("ignore_eos", "skip_special_tokens"):
            value = getattr(self, name)
            _expect(isinstance(value, bool), name, "true or false", value)
        self._check_stops()

    def _check_stops(self) -> None:
        is_list = self.stop is None or isinstance(self.stop, Sequence)
        is_text = is_list and all(isinstance(text, str) and text for text in self.stop_strings)
        _expect(is_text, "stop", "a string or strings that are not empty", self.stop)
        ids = () if self.stop_token_ids is None else self.stop_token_ids
        is_list = isinstance(ids, Sequence) and all(_is_int(token_id, 0) for token_id in ids)
        _expect(is_list, "stop_token_ids", "whole numbers of at least 0", ids)

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """The stop strings, none where `stop` is None."""
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    @property
    def is_greedy(self) -> bool:
        """Whether the most likely token is taken, without chance."""
        return self.temperature == 0


def _is_int(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_number(value: object, least: float) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and value >= least  # type: ignore[arg-type,operator]


def _expect(is_met: bool, name: str, expectation: str, value: object) -> None:
    if not is_met:
        raise ValueError(f"{name} must be {expectation}, got {value!r}")
