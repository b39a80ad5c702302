"""Greedy tokens are those of transformers' `generate`, however the work is cut."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bough.engine.llm import LLM
from bough.engine.params import SamplingParams
from tests.checkpoints import FAMILIES, reference_greedy, reference_model

MAX_TOKENS = 14
GREEDY = SamplingParams(temperature=0, max_tokens=MAX_TOKENS)


def shared_prompts() -> list[list[int]]:
    """Prompts that part inside and outside pages, one inside another, and two equal ones."""
    rng = np.random.default_rng(3)
    shared = rng.integers(0, 250, 37).tolist()
    prompts = [[*shared, *rng.integers(0, 250, size).tolist()] for size in (1, 4, 27)]
    return [*prompts, shared[:19], shared, prompts[1], rng.integers(0, 250, 3).tolist()]


PROMPTS = shared_prompts()
LONGEST = max(len(prompt) for prompt in PROMPTS) + MAX_TOKENS


@pytest.fixture(scope="module")
def expected(checkpoint: Callable[[str], Path]) -> Callable[[str], list[list[int]]]:
    known: dict[str, list[list[int]]] = {}

    def tokens(family: str) -> list[list[int]]:
        if family not in known:
            reference = reference_model(checkpoint(family))
            known[family] = [reference_greedy(reference, p, MAX_TOKENS) for p in PROMPTS]
        return known[family]

    return tokens


def greedy_tokens(llm: LLM, prompts: list[list[int]], n: int = 1) -> list[list[int]]:
    params = SamplingParams(temperature=0, max_tokens=MAX_TOKENS, n=n)
    outputs = llm.generate(prompts, params)
    return [sample.token_ids for output in outputs for sample in output.outputs]


@pytest.mark.parametrize("page_size", [1, 16, 64])
@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_are_those_of_transformers(
    checkpoint: Callable[[str], Path],
    expected: Callable[[str], list[list[int]]],
    family: str,
    page_size: int,
) -> None:
    together = LLM(checkpoint(family), device="cpu", page_size=page_size)
    assert greedy_tokens(together, PROMPTS) == expected(family)
    alone = LLM(checkpoint(family), device="cpu", page_size=page_size)
    for prompt, tokens in zip(PROMPTS[:3], expected(family), strict=False):
        alone.clear_cache()
        assert greedy_tokens(alone, [prompt]) == [tokens]


@pytest.mark.parametrize("page_size", [1, 16, 64])
@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_stay_when_samples_are_preempted(
    checkpoint: Callable[[str], Path],
    expected: Callable[[str], list[list[int]]],
    family: str,
    page_size: int,
) -> None:
    num_pages = -(-LONGEST // page_size)
    llm = LLM(checkpoint(family), device="cpu", page_size=page_size, num_pages=num_pages)
    wanted = [tokens for tokens in expected(family) for _ in range(2)]
    assert greedy_tokens(llm, PROMPTS, n=2) == wanted
    assert llm.stats.num_preemptions > 0
    llm.clear_cache()
    assert llm.num_free_pages == llm.num_pages


@pytest.mark.parametrize(
    "options",
    [
        {"max_num_batched_tokens": 1},
        {"max_num_batched_tokens": 7},
        {"max_num_seqs": 1},
        {"max_num_seqs": 3, "max_num_batched_tokens": 20, "page_size": 4, "num_pages": 30},
    ],
    ids=lambda options: "-".join(f"{name}={value}" for name, value in options.items()),
)
def test_tokens_do_not_depend_on_how_prompts_are_cut(
    checkpoint: Callable[[str], Path],
    expected: Callable[[str], list[list[int]]],
    options: dict[str, Any],
) -> None:
    llm = LLM(checkpoint("qwen3"), device="cpu", **options)
    assert greedy_tokens(llm, PROMPTS) == expected("qwen3")


def test_tokens_stay_when_requests_come_and_go(
    checkpoint: Callable[[str], Path], expected: Callable[[str], list[list[int]]]
) -> None:
    llm = LLM(checkpoint("qwen2"), device="cpu", page_size=4, num_pages=60)
    rng = np.random.default_rng(0)
    prompt_of: dict[int, int] = {}
    done: dict[int, list[int]] = {}
    waiting = list(range(len(PROMPTS))) * 4
    while waiting or llm.has_unfinished:
        for _ in range(min(len(waiting), int(rng.integers(0, 3)))):
            index = waiting.pop()
            prompt_of[llm.add_request(PROMPTS[index], GREEDY)] = index
        if len(prompt_of) > len(done) and rng.random() < 0.1:
            victim = next(id_ for id_ in prompt_of if id_ not in done)
            assert llm.abort(victim) is not None
            waiting.insert(0, prompt_of.pop(victim))
        for output in llm.step():
            if output.is_finished:
                done[output.request_id] = output.outputs[0].token_ids
    assert len(done) == 4 * len(PROMPTS)
    for request_id, tokens in done.items():
        assert tokens == expected("qwen2")[prompt_of[request_id]]
    llm.clear_cache()
    assert llm.num_free_pages == llm.num_pages
