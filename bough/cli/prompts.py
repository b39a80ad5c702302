"""The lines of a prompts file, read and checked as far as that goes without a model."""

from __future__ import annotations

import codecs
import json
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from bough.engine.params import SamplingParams
from bough.expect import expect

PROMPT_FIELDS = ("prompt", "prompt_token_ids", "messages")
SAMPLING_FIELDS = tuple(field.name for field in fields(SamplingParams))
MAX_SAMPLES = 16384  # of one prompt
MAX_REASON = 200  # characters
MAX_DIGITS = 18  # of a whole number, which then fits 64 bits


@dataclass(frozen=True, kw_only=True)
class PromptLine:
    """One prompt to complete.

    Args:
        index: which line of the file it is, counted from 0.
        kind: one of `PROMPT_FIELDS`, which says what `prompt` is.
        prompt: text, token ids or chat messages; not empty.
        params: how it is sampled.
    """

    index: int
    kind: str
    prompt: Any
    params: SamplingParams


@dataclass(frozen=True, kw_only=True)
class BadLine:
    """A line that cannot be run.

    Args:
        index: which line of the file it is, counted from 0.
        reason: what was expected and what was found.
    """

    index: int
    reason: str

    def __str__(self) -> str:
        reason = " ".join(self.reason.split())
        if len(reason) > MAX_REASON:
            reason = reason[: MAX_REASON - 3] + "..."
        return f"line {self.index + 1}: {reason}"


def read_prompts(path: Path, defaults: SamplingParams) -> tuple[list[PromptLine], list[BadLine]]:
    """Read a file of one JSON object a line; blank lines are passed over, but counted.

    Args:
        path: the file.
        defaults: how lines are sampled that do not say otherwise. From its `seed` each line gets
            one of its own, so that equal prompts on two lines get different samples.

    Returns:
        The prompts and the lines that are none, each in order of the file.

    Raises:
        OSError: the file cannot be read.
    """
    prompts: list[PromptLine] = []
    bad: list[BadLine] = []
    for index, raw in enumerate(path.read_bytes().removeprefix(codecs.BOM_UTF8).split(b"\n")):
        if not raw.strip():
            continue
        try:
            prompts.append(_read_line(index, raw, defaults))
        except ValueError as error:
            bad.append(BadLine(index=index, reason=str(error)))
    return prompts, bad


def seed_of_line(seed: int, index: int) -> int:
    """Derive the seed of the line `index` from the seed of a run."""
    stream = np.random.SeedSequence(seed, spawn_key=(index,))
    return int(stream.generate_state(1, np.uint64)[0])


def check_num_samples(params: SamplingParams) -> None:
    """Refuse more samples of one prompt than anyone can mean.

    Raises:
        ValueError: there are more than `MAX_SAMPLES`.
    """
    expect(params.n <= MAX_SAMPLES, "n", f"at most {MAX_SAMPLES}", params.n)


def _read_line(index: int, raw: bytes, defaults: SamplingParams) -> PromptLine:
    values = _read_object(raw)
    unknown = sorted(set(values) - {*PROMPT_FIELDS, *SAMPLING_FIELDS})
    expectation = "a prompt and sampling parameters only (see bough generate --help)"
    expect(not unknown, "fields", expectation, ", ".join(map(repr, unknown)))
    kinds = [name for name in PROMPT_FIELDS if name in values]
    expect(len(kinds) == 1, "line", f"a JSON object with one of {', '.join(PROMPT_FIELDS)}", kinds)
    prompt = values.pop(kinds[0])
    _check_prompt(kinds[0], prompt)
    if values.get("seed") is None and defaults.seed is not None:
        values["seed"] = seed_of_line(defaults.seed, index)
    params = replace(defaults, **values)
    check_num_samples(params)
    return PromptLine(index=index, kind=kinds[0], prompt=prompt, params=params)


def _read_object(raw: bytes) -> dict[str, Any]:
    try:
        values = json.loads(raw.decode("utf-8"), parse_int=_short_int)
    except json.JSONDecodeError as error:
        raise ValueError(f"line must be JSON, got {error.msg} at column {error.colno}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"line must be JSON in UTF-8, got {error}") from error
    expect(isinstance(values, dict), "line", "a JSON object", type(values).__name__)
    return values


def _short_int(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"a whole number of {len(text)} digits")
    return int(text)


def _check_prompt(kind: str, prompt: Any) -> None:
    if kind == "prompt":
        expect(_is_text(prompt) and prompt, "prompt", "text that is not empty", repr(prompt))
    elif kind == "prompt_token_ids":
        is_list = isinstance(prompt, list) and len(prompt) > 0
        is_list = is_list and all(type(token_id) is int for token_id in prompt)
        expect(is_list, "prompt_token_ids", "a list of token ids that is not empty", repr(prompt))
    else:
        is_list = isinstance(prompt, list) and len(prompt) > 0
        is_list = is_list and all(_is_message(message) for message in prompt)
        expectation = "a list of objects with role and content that is not empty"
        expect(is_list, "messages", expectation, repr(prompt))


def _is_message(message: Any) -> bool:
    is_object = isinstance(message, dict) and message.keys() == {"role", "content"}
    return is_object and _is_text(message["role"]) and _is_text(message["content"])


def _is_text(value: Any) -> bool:
    """Whether it is a string that UTF-8 can write; JSON may hold halves of surrogate pairs."""
    return isinstance(value, str) and not any("\ud800" <= char <= "\udfff" for char in value)
