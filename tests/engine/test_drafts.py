"""Drafts: the tokens are those without them, in fewer steps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bough.engine.drafts import Draft, PromptLookup
from bough.engine.llm import LLM
from bough.engine.outputs import RequestOutput
from bough.engine.params import SamplingParams

# A penalty below 1 lets models of random weights say again what they said.
REPEATING = {"temperature": 0, "ignore_eos": True, "repetition_penalty": 0.3}
PROMPTS = [[7, 3, 9, 7, 3, 9, 7, 3], [7, 3, 9, 7, 3, 1], [5], [*range(40), *range(30)]]


def complete(llm: LLM, params: SamplingParams) -> list[RequestOutput]:
    outputs = llm.generate(PROMPTS, params)
    llm.clear_cache()
    assert llm.num_free_pages == llm.num_pages
    return outputs


def assert_same(drafted: list[RequestOutput], plain: list[RequestOutput]) -> None:
    for one, other in zip(drafted, plain, strict=True):
        for mine, theirs in zip(one.outputs, other.outputs, strict=True):
            assert mine.token_ids == theirs.token_ids
            assert mine.text == theirs.text
            assert mine.finish_reason == theirs.finish_reason
            assert (mine.logprobs is None) == (theirs.logprobs is None)
            for here, there in zip(mine.logprobs or [], theirs.logprobs or [], strict=True):
                assert here == pytest.approx(there, abs=1e-4)


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("llama", {"page_size": 1}),
        ("llama", {"kv_dtype": "fp8"}),
        ("bough_gta", {"page_size": 3}),
        ("bough_gla", {"page_size": 16}),
    ],
    ids=str,
)
def test_greedy_tokens_are_the_same_and_some_are_drawn_ahead(
    checkpoint: Callable[[str], Path], family: str, options: dict
) -> None:
    params = SamplingParams(max_tokens=40, **REPEATING)
    plain, drafting = (
        LLM(checkpoint(family), device="cpu", num_draft_tokens=num, **options) for num in (0, 12)
    )
    assert_same(complete(drafting, params), complete(plain, params))
    stats = drafting.stats
    assert stats.num_steps <= plain.stats.num_steps
    assert stats.num_generated_tokens == plain.stats.num_generated_tokens == 4 * 40
    assert 0 < stats.num_drawn_drafts <= stats.num_draft_tokens
    assert plain.stats.num_draft_tokens == 0


@pytest.mark.parametrize(
    "change",
    [
        {"n": 3, "temperature": 0.3},
        {"n": 2, "temperature": 0.5, "top_p": 0.8, "logprobs": 2, "repetition_penalty": 1.1},
        {"temperature": 0, "stop": ["e", "th"]},
    ],
    ids=["samples", "filters", "stops"],
)
def test_samples_draw_what_they_would_without_drafts(model: Path, change: dict) -> None:
    params = SamplingParams(max_tokens=24, seed=5, **change)
    plain, drafting = (LLM(model, device="cpu", num_draft_tokens=num) for num in (0, 64))
    assert_same(complete(drafting, params), complete(plain, params))


def test_few_pages_and_small_steps_leave_fewer_drafts(model: Path) -> None:
    params = SamplingParams(n=3, max_tokens=30, **REPEATING)
    sizes = {"page_size": 4, "num_pages": 75, "max_num_batched_tokens": 40}
    plain, drafting = (LLM(model, device="cpu", num_draft_tokens=num, **sizes) for num in (0, 20))
    assert_same(complete(drafting, params), complete(plain, params))
    assert drafting.stats.num_preemptions > 0
    assert drafting.stats.num_drawn_drafts > 0


def test_too_many_drafts_are_refused(model: Path) -> None:
    with pytest.raises(ValueError, match="num_draft_tokens must be at most 64, got 65"):
        LLM(model, device="cpu", num_draft_tokens=65)


def lookup(tokens: list[int]) -> PromptLookup:
    found = PromptLookup()
    found.follow(tokens[:3], [])
    found.follow(tokens[:3], tokens[3:])
    return found


def test_what_followed_the_newest_tokens_before_is_guessed() -> None:
    draft = lookup([1, 2, 3, 4, 5, 9, 2, 3]).draft(3)
    assert (draft.token_ids, draft.parents) == ([4, 5, 9], [-1, 0, 1])
    assert lookup([1, 2, 3, 4, 5]).draft(8).token_ids == []
    assert lookup([1]).draft(8).token_ids == []


def test_several_earlier_places_make_a_tree_in_which_each_guess_stands_once() -> None:
    draft = lookup([1, 2, 7, 8, 0, 1, 2, 7, 9, 0, 1, 2]).draft(6)
    # The latest place has the first say; both go on with 7, then part.
    assert draft.token_ids[:3] == [7, 9, 0]
    assert draft.child(-1, 7) == 0
    assert draft.child(0, 9) == 1
    eight = draft.child(0, 8)
    assert eight is not None and draft.parents[eight] == 0
    assert draft.child(-1, 9) is None


def test_a_draft_takes_no_more_than_it_may() -> None:
    draft = Draft()
    draft.add([1, 2, 3], 2)
    assert (draft.token_ids, draft.parents) == ([1, 2], [-1, 0])
