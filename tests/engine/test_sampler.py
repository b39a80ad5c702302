"""Sampler: against a plain oracle a row, and against the frequencies it promises."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from bough.engine.params import SamplingParams
from bough.engine.sampler import (
    Draw,
    draw_tokens,
    filtered_probs,
    penalize_repetition,
    sample_tokens,
    top_logprobs,
)

VOCAB_SIZE = 37
PARAMS = {
    "plain": SamplingParams(),
    "cold": SamplingParams(temperature=0.3),
    "top-k": SamplingParams(top_k=5),
    "top-k-off": SamplingParams(top_k=-1),
    "top-k-all": SamplingParams(top_k=1000),
    "top-p": SamplingParams(top_p=0.7, temperature=1.7),
    "top-p-least": SamplingParams(top_p=1e-6),
    "min-p": SamplingParams(min_p=0.2),
    "all": SamplingParams(temperature=0.8, top_k=12, top_p=0.8, min_p=0.05),
    "tiny-temperature": SamplingParams(temperature=1e-30),
    "tiniest-temperature": SamplingParams(temperature=1e-300),
}


def random_logits(num_rows: int, seed: int = 0) -> Tensor:
    return torch.randn(num_rows, VOCAB_SIZE, generator=torch.Generator().manual_seed(seed)) * 2


def draw_of(params: SamplingParams, uniform: float = 0.5, seen: tuple[int, ...] = ()) -> Draw:
    return Draw(params=params, uniform=uniform, seen_token_ids=seen)


def oracle_probs(logits: Tensor, params: SamplingParams) -> np.ndarray:
    """The filters of one row as loops over its tokens, in float64."""
    scores = logits.numpy().astype(np.float64)
    scores = (scores - scores.max()) / max(params.temperature, 1e-30)
    order = sorted(range(len(scores)), key=lambda token: -scores[token])
    if 0 < params.top_k < len(order):
        order = order[: params.top_k]
    probs = {token: np.exp(scores[token]) for token in order}
    total, kept, reached = sum(probs.values()), [], 0.0
    for token in order:
        if kept and reached >= params.top_p < 1:
            break
        kept.append(token)
        reached += probs[token] / total
    kept = [token for token in kept if probs[token] >= params.min_p * probs[order[0]]]
    result = np.zeros(len(scores))
    result[kept] = [probs[token] for token in kept]
    return result / result.sum()


@pytest.mark.parametrize("name", PARAMS)
def test_filters_agree_with_a_plain_loop(name: str) -> None:
    logits = random_logits(20)
    probs = filtered_probs(logits.clone(), [PARAMS[name]] * 20).double()
    probs = probs / probs.sum(dim=-1, keepdim=True)
    for row in range(20):
        expected = oracle_probs(logits[row], PARAMS[name])
        np.testing.assert_allclose(probs[row].numpy(), expected, atol=1e-6)
        np.testing.assert_array_equal(probs[row].numpy() > 0, expected > 0)


@pytest.mark.parametrize("top_p", [0.001, 0.5, 0.9999])
@pytest.mark.parametrize("sharpness", [0.01, 1.0, 20.0])
def test_top_p_keeps_as_many_tokens_as_reach_it(sharpness: float, top_p: float) -> None:
    logits = torch.randn(4, 9000, generator=torch.Generator().manual_seed(1)) * sharpness
    params = SamplingParams(top_p=top_p)
    kept = filtered_probs(logits.clone(), [params] * 4) > 0
    for row in range(4):
        expected = oracle_probs(logits[row], params) > 0
        # Sums that differ in rounding may end a token earlier or later.
        assert abs(int(kept[row].sum()) - int(expected.sum())) <= 1
        assert int((kept[row].numpy() != expected).sum()) <= 1


def test_of_equally_likely_tokens_those_of_lower_ids_stay() -> None:
    probs = filtered_probs(torch.zeros(1, 1000), [SamplingParams(top_p=0.4995)])
    assert (probs[0] > 0).tolist() == [True] * 500 + [False] * 500
    logits = torch.tensor([[1.0, 3.0, 1.0, 3.0, 1.0]])
    probs = filtered_probs(logits, [SamplingParams(top_p=0.85)])
    assert (probs[0] > 0).tolist() == [True, True, False, True, False]


def test_a_row_does_not_depend_on_the_rows_beside_it() -> None:
    logits = random_logits(len(PARAMS) + 1)
    draws = [draw_of(params, 0.37, (1, 2)) for params in PARAMS.values()]
    draws.append(draw_of(SamplingParams(temperature=0, repetition_penalty=1.4), 0.37, (1, 2, 2)))
    together = sample_tokens(logits, draws)
    alone = [sample_tokens(logits[row : row + 1], [draws[row]])[0] for row in range(len(draws))]
    assert together == alone


def test_temperature_zero_is_the_argmax() -> None:
    logits = random_logits(50)
    draws = [draw_of(SamplingParams(temperature=0, top_p=0.5))] * 50
    assert sample_tokens(logits, draws) == logits.argmax(dim=-1).tolist()


def test_the_lowest_token_wins_a_tie() -> None:
    logits = torch.zeros(1, VOCAB_SIZE)
    assert sample_tokens(logits, [draw_of(SamplingParams(temperature=0))]) == [0]


@pytest.mark.parametrize("name", ["plain", "top-k", "top-p", "min-p", "all"])
def test_tokens_come_as_often_as_their_probability_says(name: str) -> None:
    logits, num_draws = random_logits(1), 20_000
    expected = oracle_probs(logits[0], PARAMS[name])
    uniforms = np.random.default_rng(7).random(num_draws)
    draws = [draw_of(PARAMS[name], float(uniform)) for uniform in uniforms]
    token_ids = sample_tokens(logits.expand(num_draws, -1), draws)
    observed = np.bincount(token_ids, minlength=VOCAB_SIZE)
    assert observed[expected == 0].sum() == 0
    likely = expected > 0
    deviation = observed[likely] - num_draws * expected[likely]
    chi_squared = (deviation**2 / (num_draws * expected[likely])).sum()
    # Mean k, standard deviation sqrt(2k) for k degrees of freedom; the seed is fixed.
    assert chi_squared < likely.sum() + 4 * np.sqrt(2 * likely.sum())


@pytest.mark.parametrize("uniform", [0.0, 0.25, 1 - 2**-53])
def test_only_tokens_of_some_probability_are_drawn(uniform: float) -> None:
    probs = torch.tensor([[0.0, 0.1, 0.0, 0.1, 0.0], [0.0, 0.0, 1.0, 0.0, 0.0]])
    first, second = draw_tokens(probs, [uniform, uniform]).tolist()
    assert first == (1 if uniform < 0.5 else 3)
    assert second == 2


def test_repetition_penalty_is_that_of_hugging_face() -> None:
    from transformers import RepetitionPenaltyLogitsProcessor

    logits, seen = random_logits(3), [[1, 5, 5, 9], [0], [36, 2]]
    params = [SamplingParams(repetition_penalty=penalty) for penalty in (1.3, 1.0, 0.7)]
    draws = [draw_of(p, seen=tuple(ids)) for p, ids in zip(params, seen, strict=True)]
    before = logits.clone()
    penalized = penalize_repetition(logits, draws)
    torch.testing.assert_close(logits, before, rtol=0, atol=0)
    for row, penalty in enumerate((1.3, 1.0, 0.7)):
        processor = RepetitionPenaltyLogitsProcessor(penalty)
        expected = processor(torch.tensor([seen[row]]), logits[row : row + 1].clone())[0]
        torch.testing.assert_close(penalized[row], expected)


def test_logprobs_hold_the_top_and_the_chosen_token() -> None:
    logits = random_logits(4)
    expected = logits.log_softmax(dim=-1)
    chosen = [*logits[:3].argmin(dim=-1).tolist(), int(logits[3].argmax())]
    num_top = [0, 3, 5, 2]
    for row, report in enumerate(top_logprobs(logits, chosen, num_top)):
        top = expected[row].topk(num_top[row]).indices.tolist()
        assert list(report) == (top if chosen[row] in top else [*top, chosen[row]])
        for token, value in report.items():
            assert value == pytest.approx(expected[row, token].item(), abs=1e-6)
