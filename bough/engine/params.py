"""How one request is sampled: names, defaults and meanings as vLLM's users know them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bough.expect import expect

MAX_PENALTY = 1e6  # beyond it, products with logits leave the range of fp32


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
        checks = {
            "n": (_is_int(self.n, 1), "a whole number of at least 1"),
            "temperature": (_is_number(self.temperature), "at least 0"),
            "top_p": (_is_number(self.top_p) and 0 < self.top_p <= 1, "above 0 and at most 1"),
            "top_k": (_is_int(self.top_k, -1), "a whole number of at least -1"),
            "min_p": (_is_number(self.min_p) and self.min_p <= 1, "from 0 to 1"),
            "repetition_penalty": (
                _is_number(self.repetition_penalty)
                and 1 / MAX_PENALTY <= self.repetition_penalty <= MAX_PENALTY,
                f"from {1 / MAX_PENALTY} to {MAX_PENALTY}",
            ),
            "max_tokens": _at_least(self.max_tokens, 1),
            "stop": (self._has_valid_stop(), "a string or strings that are not empty"),
            "stop_token_ids": (self._has_valid_stop_tokens(), "whole numbers of at least 0"),
            "ignore_eos": (isinstance(self.ignore_eos, bool), "true or false"),
            "seed": _at_least(self.seed, 0),
            "logprobs": _at_least(self.logprobs, 0),
            "skip_special_tokens": (isinstance(self.skip_special_tokens, bool), "true or false"),
        }
        for name, (is_met, expectation) in checks.items():
            expect(is_met, name, expectation, repr(getattr(self, name)))

    def _has_valid_stop(self) -> bool:
        is_list = self.stop is None or isinstance(self.stop, Sequence)
        return is_list and all(isinstance(text, str) and text for text in self.stop_strings)

    def _has_valid_stop_tokens(self) -> bool:
        ids = () if self.stop_token_ids is None else self.stop_token_ids
        return isinstance(ids, Sequence) and all(_is_int(token_id, 0) for token_id in ids)

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


def _is_number(value: object) -> bool:
    """Whether it is a finite number of at least 0."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and value >= 0  # type: ignore[arg-type,operator]


def _at_least(value: object, least: int) -> tuple[bool, str]:
    is_met = value is None or _is_int(value, least)
    return is_met, f"None or a whole number of at least {least}"
