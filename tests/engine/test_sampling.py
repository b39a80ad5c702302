"""Sampling through the whole engine: every sample draws from a stream of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bough.engine.llm import LLM
from bough.engine.params import SamplingParams
from tests.checkpoints import reference_model

PROMPT = list(range(20, 45))
PARAMS = SamplingParams(
    n=4, seed=11, temperature=0.9, top_k=60, top_p=0.95, max_tokens=20, ignore_eos=True
)


def tokens_of(llm: LLM, params: SamplingParams, prompt: list[int] = PROMPT) -> list[list[int]]:
    return [sample.token_ids for sample in llm.generate([prompt], params)[0].outputs]


@pytest.fixture(scope="module")
def alone(model: Path) -> list[list[int]]:
    """Tokens of the seeded samples with nothing beside them."""
    return tokens_of(LLM(model, device="cpu"), PARAMS)


def test_samples_of_a_request_differ(alone: list[list[int]]) -> None:
    assert len({tuple(tokens) for tokens in alone}) == 4


def test_seeded_samples_are_the_same_in_a_batch(model: Path, alone: list[list[int]]) -> None:
    llm = LLM(model, device="cpu", page_size=4)
    others = [SamplingParams(n=3, seed=seed, max_tokens=30, min_p=0.1) for seed in range(3)]
    prompts = [PROMPT, PROMPT[:10], PROMPT, [*PROMPT, 5]]
    outputs = llm.generate(prompts, [others[0], others[1], PARAMS, others[2]])
    assert [sample.token_ids for sample in outputs[2].outputs] == alone


def test_seeded_samples_are_the_same_after_preemption(model: Path, alone: list[list[int]]) -> None:
    llm = LLM(model, device="cpu", page_size=4, num_pages=14)
    assert tokens_of(llm, PARAMS) == alone
    assert llm.stats.num_preemptions > 0


def test_the_first_samples_are_the_same_whatever_n(model: Path, alone: list[list[int]]) -> None:
    llm = LLM(model, device="cpu")
    two = SamplingParams(
        n=2, seed=11, temperature=0.9, top_k=60, top_p=0.95, max_tokens=20, ignore_eos=True
    )
    assert tokens_of(llm, two) == alone[:2]


def test_the_engines_seed_decides_for_requests_without_one(model: Path) -> None:
    params = SamplingParams(n=2, max_tokens=20, ignore_eos=True)
    runs = [tokens_of(LLM(model, device="cpu", seed=seed), params) for seed in (5, 5, 6, None)]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2] and runs[0] != runs[3]
    llm = LLM(model, device="cpu", seed=5)
    assert tokens_of(llm, params) != tokens_of(llm, params)


def test_first_tokens_come_as_often_as_the_model_says(model: Path) -> None:
    logits = reference_model(model)(torch.tensor([PROMPT])).logits[0, -1].detach()
    num_samples = 3000
    params = SamplingParams(n=num_samples, seed=3, max_tokens=1, temperature=0.7)
    tokens = torch.tensor(tokens_of(LLM(model, device="cpu", max_num_seqs=4000), params))
    expected = (logits / 0.7).softmax(dim=-1) * num_samples
    observed = torch.bincount(tokens[:, 0], minlength=len(logits))
    likely = expected > 5
    chi_squared = ((observed - expected) ** 2 / expected)[likely].sum()
    num_likely = int(likely.sum())
    assert num_likely > 20
    assert chi_squared < num_likely + 4 * (2 * num_likely) ** 0.5


def test_a_repetition_penalty_changes_what_repeats(model: Path) -> None:
    llm = LLM(model, device="cpu")
    plain = SamplingParams(temperature=0, max_tokens=30, ignore_eos=True)
    strong = SamplingParams(
        temperature=0, max_tokens=30, ignore_eos=True, repetition_penalty=1000.0
    )
    (free,), (kept) = tokens_of(llm, plain), tokens_of(llm, strong)[0]
    assert len({*kept}) == 30 and not {*kept} & {*PROMPT}
    assert free != kept


def test_logprobs_are_those_of_the_model_before_temperature(model: Path) -> None:
    llm = LLM(model, device="cpu")
    params = SamplingParams(
        n=2, seed=1, temperature=2.0, top_k=3, max_tokens=4, logprobs=2, ignore_eos=True
    )
    output = llm.generate([PROMPT], params)[0]
    reference = reference_model(model)
    for sample in output.outputs:
        assert sample.logprobs is not None and len(sample.logprobs) == 4
        whole = torch.tensor([[*PROMPT, *sample.token_ids]])
        expected = reference(whole).logits[0].detach().log_softmax(dim=-1)
        for at, (token_id, report) in enumerate(
            zip(sample.token_ids, sample.logprobs, strict=True)
        ):
            row = expected[len(PROMPT) - 1 + at]
            assert list(report)[:2] == row.topk(2).indices.tolist()
            assert token_id in report and len(report) <= 3
            for token, value in report.items():
                assert value == pytest.approx(row[token].item(), abs=1e-3)
    silent = llm.generate([PROMPT], SamplingParams(max_tokens=2))[0].outputs[0]
    assert silent.logprobs is None
