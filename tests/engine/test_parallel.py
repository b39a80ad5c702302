"""Two ranks generate what one does, and each keeps its share of the KV."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from bough.engine.engine import Engine
from bough.engine.llm import LLM
from bough.engine.outputs import RequestOutput
from bough.engine.params import SamplingParams
from bough.parallel import Ranks, start_ranks
from tests.checkpoints import VOCAB_SIZE, make_checkpoint
from tests.engine.ranked import engine_on, entry
from tests.engine.test_greedy import shared_prompts

# The six variants; GQA with all biases there are, and MLA also with experts and a low-rank query.
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "mha": ("qwen2", {"num_key_value_heads": 4}),
    "mqa": ("llama", {"num_key_value_heads": 1}),
    "gqa-2": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "gqa-2-norms-window": ("qwen3", {"num_attention_heads": 4, "num_key_value_heads": 2}),
    "gta-2": ("bough_gta", {}),
    "gla-2": ("bough_gla", {"num_latent_heads": 2}),
    "mla": ("bough_gla", {"num_latent_heads": 1, "kv_lora_rank": 64}),
    "mla-experts": ("deepseek_v3", {"attention_bias": True}),
}
# Elements of a token and layer on each of two ranks, by the table of the variants.
ELEMENTS = {
    "mha": 2 * 2 * 16,
    "mqa": 2 * 16,
    "gqa-2": 2 * 16,
    "gqa-2-norms-window": 2 * 32,
    "gta-2": 16 + 8,
    "gla-2": 32 + 8,
    "mla": 64 + 8,
    "mla-experts": 32 + 8,
}
EVERYTHING = SamplingParams(temperature=0, max_tokens=6, n=2, ignore_eos=True, logprobs=VOCAB_SIZE)


@pytest.fixture(scope="module")
def ranks() -> Iterator[Ranks]:
    torch.set_num_threads(2)  # which the two share
    pair = start_ranks(2, "cpu", entry("cpu"))
    yield pair
    pair.close()


@pytest.fixture(scope="module")
def variant_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    def folder(variant: str) -> Path:
        family, overrides = VARIANTS[variant]
        path = tmp_path_factory.mktemp(variant)
        return make_checkpoint(family, path, seed=21, max_shard_size="100KB", **overrides)

    return folder


def finished(engine: Engine, params: SamplingParams = EVERYTHING) -> list[RequestOutput]:
    """Complete the prompts, which share prefixes, and clear the cache."""
    outputs = {}
    for prompt in shared_prompts():
        engine.add_request({"prompt_token_ids": prompt}, params)
    while engine.has_unfinished:
        outputs |= {output.request_id: output for output in engine.step() if output.is_finished}
    engine.clear_cache()
    assert engine.num_free_pages == engine.num_pages
    return [outputs[request_id] for request_id in sorted(outputs)]


def logits_of(outputs: list[RequestOutput]) -> torch.Tensor:
    """[num_tokens, vocab_size] log probabilities of all tokens of all samples."""
    rows = [row for output in outputs for sample in output.outputs for row in sample.logprobs or ()]
    return torch.tensor([[row[token] for token in range(VOCAB_SIZE)] for row in rows])


@pytest.mark.parametrize("variant", VARIANTS)
def test_tokens_and_logits_are_those_of_one_rank(
    ranks: Ranks, variant_model: Callable[[str], Path], variant: str
) -> None:
    model = variant_model(variant)
    expected = finished(LLM(model, device="cpu", dtype="float32"))
    for page_size in (1, 16):
        num_pages = 80 // page_size  # so few that samples wait for each other
        options = {"page_size": page_size, "num_pages": num_pages, "max_num_batched_tokens": 50}
        with engine_on(ranks, model, "cpu", dtype="float32", **options) as engine:
            got = finished(engine)
            stats = engine.stats
        for output, wanted in zip(got, expected, strict=True):
            tokens = [sample.token_ids for sample in output.outputs]
            assert tokens == [sample.token_ids for sample in wanted.outputs]
        torch.testing.assert_close(logits_of(got), logits_of(expected), rtol=1e-5, atol=3e-5)
        assert stats.num_ranks == 2
        assert stats.kv_token_bytes == 3 * 4 * ELEMENTS[variant]


def test_samples_of_a_seed_are_those_of_one_rank(
    ranks: Ranks, variant_model: Callable[[str], Path]
) -> None:
    model = variant_model("gta-2")
    params = SamplingParams(n=3, max_tokens=12, seed=5, top_p=0.95, min_p=0.01)
    expected = finished(LLM(model, device="cpu", dtype="float32"), params)
    with engine_on(ranks, model, "cpu", dtype="float32") as engine:
        got = finished(engine, params)
    assert [output.outputs for output in got] == [output.outputs for output in expected]


def test_half_precision_runs_on_two_ranks(
    ranks: Ranks, variant_model: Callable[[str], Path]
) -> None:
    model = variant_model("gla-2")
    params = SamplingParams(temperature=0, max_tokens=1, logprobs=VOCAB_SIZE)
    expected = logits_of(finished(LLM(model, device="cpu", dtype="bfloat16"), params))
    with engine_on(ranks, model, "cpu", dtype="bfloat16") as engine:
        got = logits_of(finished(engine, params))
        assert engine.stats.kv_token_bytes == 3 * 2 * ELEMENTS["gla-2"]
    assert (got - expected).square().mean().sqrt() < 0.05


def test_an_abandoned_request_leaves_the_ranks_together(
    ranks: Ranks, variant_model: Callable[[str], Path]
) -> None:
    with engine_on(ranks, variant_model("gqa-2"), "cpu", dtype="float32") as engine:
        request_id = engine.add_request({"prompt_token_ids": [5, 6, 7]}, EVERYTHING)
        engine.step()
        engine.step()
        assert engine.abort(request_id) is not None
        assert len(finished(engine)) == len(shared_prompts())


@pytest.mark.parametrize(
    ("variant", "size", "message"),
    [
        ("gqa-2", 3, "tp must be a divisor of num_q_heads 4, got 3"),
        ("mha", 8, "tp must be a divisor of num_q_heads 4, got 8"),
        ("gqa-2", 0, "tensor_parallel_size must be a whole number of at least 1, got 0"),
    ],
)
def test_ranks_that_cannot_share_the_model_are_refused_before_they_start(
    variant_model: Callable[[str], Path], variant: str, size: int, message: str
) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        LLM(variant_model(variant), device="cpu", tensor_parallel_size=size)
