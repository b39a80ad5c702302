"""Prompts that cannot be served: named in one line, and nothing is lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bough.engine.llm import LLM
from bough.engine.params import SamplingParams
from tests.checkpoints import VOCAB_SIZE

GREEDY = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)


@pytest.fixture
def llm(model: Path) -> LLM:
    return LLM(model, device="cpu", page_size=4, num_pages=200, max_model_len=256)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ([], "prompt must be at least 1 token, got 0"),
        ("", "prompt must be at least 1 token, got 0"),
        ([1] * 256, "prompt must be at most 255 tokens, the context less one, got 256"),
        ([1, VOCAB_SIZE], rf"prompt_token_ids\[1\] must be from 0 to {VOCAB_SIZE - 1}, got 300"),
        ([1, -1], r"prompt_token_ids\[1\] must be from 0 to .*, got -1"),
        ([1, "x"], r"prompt_token_ids\[1\] must be from 0 to .*, got 'x'"),
        ({"prompt": 5}, "prompt must be text, got 5"),
        ({"promt": "x"}, r"prompt must be a mapping of .* only, got \['promt'\]"),
        ({}, "prompt must be text or token ids, got {}"),
        ({"prompt_token_ids": 3}, "prompt_token_ids must be a list of token ids, got 3"),
        (7, "prompt_token_ids must be a list of token ids, got 7"),
        ({"prompt": "x", "cache_salt": 1}, "cache_salt must be text, got 1"),
    ],
)
def test_a_bad_prompt_is_named_and_loses_nothing(llm: LLM, prompt: Any, message: str) -> None:
    with pytest.raises(ValueError, match=rf"^prompts\[1\]: {message}$"):
        llm.generate(["the leaf", prompt, "the tree"], GREEDY)
    with pytest.raises(ValueError, match=f"^{message}$"):
        llm.add_request(prompt, GREEDY)
    assert not llm.has_unfinished
    assert len(llm.generate(["the leaf", "the tree"], GREEDY)) == 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda llm: llm.generate(3), "prompts must be a prompt or a list of prompts, got 3"),
        (lambda llm: llm.stream(b"x"), "prompts must be a prompt or a list of prompts, got b'x'"),
        (lambda llm: llm.generate("x", 3), r"prompts\[0\]: params must be SamplingParams, got 3"),
        (lambda llm: llm.add_request("x", {"n": 2}), "params must be SamplingParams, got {'n': 2}"),
        (lambda llm: llm.chat(3), "messages must be a list of messages, or of such lists, got 3"),
    ],
)
def test_another_type_is_named(llm: LLM, call: Callable[[LLM], Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        call(llm)


def test_what_can_never_fit_the_pool_is_refused(model: Path) -> None:
    llm = LLM(model, device="cpu", page_size=4, num_pages=5)
    llm.generate([[1] * 13], GREEDY)  # 13 + 8 tokens, the last of which is not stored
    with pytest.raises(ValueError, match="at most 21 tokens together for 5 pages of KV, got 22"):
        llm.generate([[1] * 14], GREEDY)
