"""Every attention variant decodes step by step as it runs whole sequences."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bough.engine.llm import LLM
from bough.engine.outputs import RequestOutput
from bough.engine.params import SamplingParams
from bough.models.load import load_model
from tests.checkpoints import VOCAB_SIZE, make_checkpoint, reference_greedy, reference_model

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "mha": ("llama", {"num_key_value_heads": 4}),
    "mqa": ("llama", {"num_key_value_heads": 1}),
    "gqa-2": ("llama", {}),
    "gta-2": ("bough_gta", {}),
    "mla-of-deepseek": ("deepseek_v3", {}),
    "gla-1": ("bough_gla", {"num_latent_heads": 1, "kv_lora_rank": 64, "q_lora_rank": 24}),
    "gla-2": ("bough_gla", {}),
}
MAX_TOKENS = 9


def shared_prompts() -> list[list[int]]:
    """Prompts that part inside a page, one inside another, and two equal ones."""
    rng = np.random.default_rng(5)
    shared = rng.integers(2, 250, 21).tolist()
    prompts = [[*shared, *rng.integers(2, 250, size).tolist()] for size in (1, 12)]
    return [*prompts, shared[:10], shared, prompts[1], rng.integers(2, 250, 3).tolist()]


PROMPTS = shared_prompts()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a variant's checkpoint."""
    known: dict[str, Path] = {}

    def path(variant: str) -> Path:
        if variant not in known:
            family, overrides = VARIANTS[variant]
            target = tmp_path_factory.mktemp(variant)
            known[variant] = make_checkpoint(family, target, seed=2, **overrides)
        return known[variant]

    return path


def assert_logprobs_are_those_of_whole_sequences(path: Path, outputs: list[RequestOutput]) -> None:
    """Compare every step of every sample with one run of its whole sequence."""
    decoder = load_model(path)
    for output, prompt in zip(outputs, PROMPTS, strict=True):
        for sample in output.outputs:
            tokens = torch.tensor([prompt + list(sample.token_ids)[:-1]])
            with torch.inference_mode():
                hidden = decoder.forward_sequences(tokens)[0, len(prompt) - 1 :]
            expected = decoder.logits(hidden).log_softmax(-1)
            reports = sample.logprobs
            assert reports is not None
            rows = [[report[token] for token in range(VOCAB_SIZE)] for report in reports]
            torch.testing.assert_close(torch.tensor(rows), expected, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("page_size", [1, 16])
@pytest.mark.parametrize("variant", VARIANTS)
def test_branches_give_the_logits_of_whole_sequences(
    folder: Callable[[str], Path], variant: str, page_size: int
) -> None:
    llm = LLM(folder(variant), device="cpu", page_size=page_size, max_num_batched_tokens=24)
    params = SamplingParams(
        n=2, seed=3, max_tokens=MAX_TOKENS, ignore_eos=True, logprobs=VOCAB_SIZE
    )
    outputs = llm.generate(PROMPTS, params)
    assert len({tuple(sample.token_ids) for out in outputs for sample in out.outputs}) > 6
    assert_logprobs_are_those_of_whole_sequences(folder(variant), outputs)


@pytest.mark.parametrize("page_size", [1, 16])
@pytest.mark.parametrize("variant", VARIANTS)
def test_greedy_tokens_are_those_of_the_auto_class(
    folder: Callable[[str], Path], variant: str, page_size: int
) -> None:
    llm = LLM(folder(variant), device="cpu", page_size=page_size)
    outputs = llm.generate(PROMPTS, SamplingParams(temperature=0, max_tokens=MAX_TOKENS))
    reference = reference_model(folder(variant))
    for output, prompt in zip(outputs, PROMPTS, strict=True):
        assert output.outputs[0].token_ids == reference_greedy(reference, prompt, MAX_TOKENS)


@pytest.mark.parametrize(
    ("variant", "elements"),
    [("mha", 2 * 64), ("mqa", 2 * 16), ("gqa-2", 2 * 32), ("gta-2", 32 + 8), ("gla-2", 64 + 8)],
)
def test_an_engine_holds_the_bytes_that_a_variant_says(
    folder: Callable[[str], Path], variant: str, elements: int
) -> None:
    llm = LLM(folder(variant), device="cpu", page_size=16, kv_bytes=3 * elements * 4 * 16 * 5)
    assert llm.num_pages == 5  # of 3 layers in float32


@pytest.mark.parametrize("variant", ["gqa-2", "gta-2", "gla-2"])
def test_an_engine_with_fp8_kv_stores_less_and_says_nearly_the_same(
    folder: Callable[[str], Path], variant: str
) -> None:
    params = SamplingParams(temperature=0.0, max_tokens=1, ignore_eos=True, logprobs=5)
    reports = []
    for kv_dtype in (None, "fp8"):
        llm = LLM(folder(variant), device="cpu", num_pages=40, page_size=4, kv_dtype=kv_dtype)
        outputs = llm.generate(PROMPTS, params)
        reports.append([output.outputs[0].logprobs[0] for output in outputs])
        num_bytes = llm.stats.kv_token_bytes
        assert num_bytes == 3 * llm.model_config.spec.kv_bytes(1, 1 if kv_dtype else 4)
    for plain, fp8 in zip(*reports, strict=True):
        for token in plain.keys() & fp8.keys():
            assert abs(plain[token] - fp8[token]) < 0.4
