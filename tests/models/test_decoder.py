from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bough.models.decoder import Decoder
from bough.models.load import load_model
from tests.checkpoints import FAMILIES, VOCAB_SIZE, make_checkpoint, reference_model
from tests.models.stepping import Stepper, prompt_logits

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{family: (family, {}) for family in FAMILIES},
    "llama-unscaled-with-biases": (
        "llama",
        {"rope_parameters": None, "attention_bias": True, "mlp_bias": True},
    ),
    "llama-linear-mqa": (
        "llama",
        {"rope_parameters": {"rope_type": "linear", "factor": 2.5}, "num_key_value_heads": 1},
    ),
    "mistral-without-window-mha": ("mistral", {"sliding_window": None, "num_key_value_heads": 4}),
    "qwen2-yarn": (
        "qwen2",
        {
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 5000.0,
                "factor": 4.0,
                "original_max_position_embeddings": 32,
            }
        },
    ),
    "qwen2-window-in-all-layers": (
        "qwen2",
        {"use_sliding_window": True, "sliding_window": 20, "max_window_layers": 0},
    ),
    "qwen3-with-biases-tied": ("qwen3", {"attention_bias": True, "tie_word_embeddings": True}),
}


def random_tokens(count: int, seed: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, VOCAB_SIZE, (count,), generator=generator).tolist()


def reference_logits(path: Path, tokens: list[int], dtype: torch.dtype) -> torch.Tensor:
    with torch.inference_mode():
        return reference_model(path).to(dtype)(torch.tensor([tokens])).logits[0].float()


def relative_error(got: torch.Tensor, expected: torch.Tensor) -> float:
    return float((got - expected).abs().max() / expected.abs().max())


def greedy(decoder: Decoder, tokens: list[int]) -> list[int]:
    return prompt_logits(decoder, tokens).argmax(-1).tolist()


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_of_a_prompt_equal_those_of_transformers(variant: str, tmp_path: Path) -> None:
    family, overrides = VARIANTS[variant]
    make_checkpoint(family, tmp_path, seed=1, **overrides)
    tokens = random_tokens(101, seed=2)
    expected = reference_logits(tmp_path, tokens, torch.float32)
    decoder = load_model(tmp_path)
    assert relative_error(prompt_logits(decoder, tokens), expected) < 1e-5
    with torch.inference_mode():
        whole = decoder.logits(decoder.forward_sequences(torch.tensor([tokens]))[0])
    assert relative_error(whole, expected) < 1e-5


@pytest.mark.parametrize("page_size", [1, 16])
@pytest.mark.parametrize("family", FAMILIES)
def test_two_requests_that_share_a_prefix_decode_as_transformers_does(
    family: str, page_size: int, tmp_path: Path
) -> None:
    make_checkpoint(family, tmp_path, seed=3)
    prefix = random_tokens(48, seed=4)
    sequences = [prefix + random_tokens(19, seed=5), prefix + random_tokens(12, seed=6)]
    expected = [reference_logits(tmp_path, seq, torch.float32) for seq in sequences]

    width, shared = -(-70 // page_size), 48 // page_size
    tables = [range(width), [*range(shared), *range(width, 2 * width - shared)]]
    stepper = Stepper(load_model(tmp_path), tables, page_size)
    first = stepper.feed([sequences[0][:50], []])[0]
    stepper.skip(1, 48)
    second = stepper.feed([[], sequences[1][48:50]])[1]
    got = [[first], [expected[1][:48], second]]
    for position in range(50, 67):
        steps = [seq[position : position + 1] for seq in sequences]
        for request, logits in enumerate(stepper.feed(steps)):
            got[request].append(logits)
    for rows, wanted in zip(got, expected, strict=True):
        assert relative_error(torch.cat(rows), wanted) < 1e-5


def test_a_stored_token_that_runs_again_gives_the_same_logits(tmp_path: Path) -> None:
    make_checkpoint("qwen3", tmp_path)
    tokens = random_tokens(20, seed=7)
    stepper = Stepper(load_model(tmp_path), [[0, 1]], page_size=16)
    once = stepper.feed([tokens])[0][-1:]
    stored = [plane.clone() for plane in stepper.kv[1]]
    again = stepper.feed([tokens[-1:]], stored=True)[0]
    assert relative_error(again, once) < 1e-5
    for plane, before in zip(stepper.kv[1], stored, strict=True):
        assert torch.equal(plane.nan_to_num(7.0), before.nan_to_num(7.0))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
def test_half_precision_errs_at_most_twice_as_much_as_transformers(
    family: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    make_checkpoint(family, tmp_path, seed=8)
    tokens = random_tokens(64, seed=9)
    expected = reference_logits(tmp_path, tokens, torch.float32)
    theirs = (reference_logits(tmp_path, tokens, dtype) - expected).square().mean()
    decoder = load_model(tmp_path, dtype=dtype)
    assert all(parameter.dtype == dtype for parameter in decoder.parameters())
    ours = (prompt_logits(decoder, tokens) - expected).square().mean()
    assert ours.sqrt() <= 2 * theirs.sqrt()


def test_whole_sequences_drop_out_in_training_only(tmp_path: Path) -> None:
    decoder = load_model(make_checkpoint("llama", tmp_path))
    tokens = torch.tensor([random_tokens(20, seed=18)])
    sure = decoder.forward_sequences(tokens)
    assert torch.equal(decoder.forward_sequences(tokens, dropout=0.5), sure)
    decoder.train()
    assert torch.equal(decoder.forward_sequences(tokens), sure)
    assert not torch.allclose(decoder.forward_sequences(tokens, dropout=0.5), sure)


CHANGES: dict[str, tuple[str, dict[str, Any]]] = {
    "rope scaling": ("llama", {"rope_scaling": None}),
    "q, k and v biases": ("qwen2", {"has_qkv_bias": False}),
    "q and k norms": ("qwen3", {"has_qk_norm": False}),
    "the rope base": ("mistral", {"rope_theta": 1e6}),
}


@pytest.mark.parametrize("feature", CHANGES)
def test_greedy_tokens_change_without(feature: str, tmp_path: Path) -> None:
    family, changes = CHANGES[feature]
    decoder = load_model(make_checkpoint(family, tmp_path, seed=10))
    altered = Decoder(replace(decoder.config, **changes))
    altered.load_state_dict(decoder.state_dict(), strict=False)
    tokens = random_tokens(96, seed=11)
    assert greedy(altered, tokens) != greedy(decoder, tokens)


def test_greedy_tokens_change_without_the_window(tmp_path: Path) -> None:
    decoder = load_model(make_checkpoint("mistral", tmp_path, seed=12))
    config = replace(decoder.config, spec=replace(decoder.spec, window=None))
    altered = Decoder(config)
    altered.load_state_dict(decoder.state_dict())
    tokens = random_tokens(96, seed=13)
    window = decoder.spec.window
    assert window is not None
    assert greedy(altered, tokens)[:window] == greedy(decoder, tokens)[:window]
    assert greedy(altered, tokens) != greedy(decoder, tokens)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("part", ["self_attn.o_proj", "mlp.down_proj"])
def test_greedy_tokens_change_in_every_layer_without(
    part: str, family: str, tmp_path: Path
) -> None:
    decoder = load_model(make_checkpoint(family, tmp_path, seed=14))
    tokens = random_tokens(64, seed=15)
    whole = greedy(decoder, tokens)
    for layer in decoder.layers:
        weight = layer.get_submodule(part).get_parameter("weight")
        kept = weight.clone()
        weight.zero_()
        assert greedy(decoder, tokens) != whole
        weight.copy_(kept)


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_tokens_of_random_checkpoints_vary(family: str, tmp_path: Path) -> None:
    decoder = load_model(make_checkpoint(family, tmp_path, seed=16))
    stepper = Stepper(decoder, [range(4)], page_size=16)
    output = [int(stepper.feed([random_tokens(40, seed=17)])[0][-1].argmax())]
    for _ in range(16):
        output.append(int(stepper.feed([output[-1:]])[0][-1].argmax()))
    assert len(set(output)) >= 6
