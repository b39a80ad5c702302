"""DeepSeek's checkpoints run as transformers runs them; Bough's own as the layers say."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from bough.layers.latent import LatentShape
from bough.models.config import load_config
from bough.models.load import load_model
from tests.checkpoints import (
    TIED_FAMILIES,
    edit_config,
    make_checkpoint,
    reference_model,
)
from tests.models.stepping import Stepper, prompt_logits
from tests.models.test_decoder import random_tokens, reference_logits, relative_error

UNSCALED = {"rope_parameters": None}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{family: (family, {}) for family in TIED_FAMILIES},
    "v2-greedy-without-query-rank": (
        "deepseek_v2",
        {"topk_method": "greedy", "q_lora_rank": None, "mlp_bias": True, **UNSCALED},
    ),
    "v2-all-experts": ("deepseek_v2", {"first_k_dense_replace": 0, "n_shared_experts": 1}),
    "v3-half-by-half": ("deepseek_v3", {"rope_interleave": False, "norm_topk_prob": False}),
    "v3-dense-with-biases": ("deepseek_v3", {"first_k_dense_replace": 3, "attention_bias": True}),
    "gla-1-with-query-rank": ("bough_gla", {"num_latent_heads": 1, "q_lora_rank": 24}),
    "gla-4-tied-embeddings": ("bough_gla", {"num_latent_heads": 4, "tie_word_embeddings": True}),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_of_a_prompt_equal_those_of_the_auto_class(variant: str, tmp_path: Path) -> None:
    family, overrides = VARIANTS[variant]
    make_checkpoint(family, tmp_path, seed=1, **overrides)
    tokens = random_tokens(101, seed=2)
    expected = reference_logits(tmp_path, tokens, torch.float32)
    decoder = load_model(tmp_path)
    assert relative_error(prompt_logits(decoder, tokens), expected) < 1e-5
    with torch.inference_mode():
        whole = decoder.logits(decoder.forward_sequences(torch.tensor([tokens]))[0])
    assert relative_error(whole, expected) < 1e-5


@pytest.mark.parametrize("family", TIED_FAMILIES)
def test_two_requests_that_share_a_prefix_decode_as_whole_sequences(
    family: str, tmp_path: Path
) -> None:
    make_checkpoint(family, tmp_path, seed=3)
    prefix = random_tokens(16, seed=4)
    sequences = [prefix + random_tokens(9, seed=5), prefix + random_tokens(9, seed=6)]
    expected = [reference_logits(tmp_path, seq, torch.float32) for seq in sequences]
    stepper = Stepper(load_model(tmp_path), [[3, 1], [3, 0]], page_size=16)
    stepper.feed([sequences[0][:17], []])
    stepper.skip(1, 16)
    stepper.feed([[], sequences[1][16:17]])
    for position in range(17, 25):
        steps = [seq[position : position + 1] for seq in sequences]
        for logits, wanted in zip(stepper.feed(steps), expected, strict=True):
            assert relative_error(logits, wanted[position : position + 1]) < 1e-5


@pytest.mark.parametrize("family", ["bough_gta", "bough_gla", "deepseek_v2"])
def test_bfloat16_errs_at_most_twice_as_much_as_whole_sequences(
    family: str, tmp_path: Path
) -> None:
    make_checkpoint(family, tmp_path, seed=8, **({} if "bough" in family else UNSCALED))
    tokens = random_tokens(64, seed=9)
    expected = reference_logits(tmp_path, tokens, torch.float32)
    theirs = (reference_logits(tmp_path, tokens, torch.bfloat16) - expected).square().mean()
    ours = prompt_logits(load_model(tmp_path, dtype=torch.bfloat16), tokens) - expected
    assert ours.square().mean().sqrt() <= 2 * theirs.sqrt()


def test_a_router_s_bias_stays_in_float32(tmp_path: Path) -> None:
    make_checkpoint("deepseek_v3", tmp_path)
    decoder = load_model(tmp_path, dtype=torch.bfloat16)
    name = "layers.1.mlp.gate.e_score_correction_bias"
    stored = load_file(tmp_path / "model.safetensors")[f"model.{name}"]
    assert torch.equal(decoder.get_buffer(name), stored)
    assert {parameter.dtype for parameter in decoder.parameters()} == {torch.bfloat16}


def test_layers_behind_the_last_are_passed_over(tmp_path: Path) -> None:
    make_checkpoint("deepseek_v3", tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["model.layers.3.eh_proj.weight"] = torch.ones(64, 128)
    save_file(tensors, tmp_path / "model.safetensors")
    load_model(tmp_path)
    edit_config(tmp_path, num_nextn_predict_layers=0)
    with pytest.raises(ValueError, match=r"must hold only .*, got model.layers.3.eh_proj.weight$"):
        load_model(tmp_path)


def test_yarn_sharpens_the_scores_of_latents(tmp_path: Path) -> None:
    make_checkpoint("deepseek_v2", tmp_path)
    config, factor = load_config(tmp_path), 0.1 * 1.2 * math.log(8.0) + 1
    assert config.spec.scale == pytest.approx((16 + 8) ** -0.5 * factor**2)
    assert config.context_len == 512


def test_what_deepseek_s_configs_leave_out_takes_their_defaults(tmp_path: Path) -> None:
    reference = reference_model(make_checkpoint("deepseek_v3", tmp_path)).config.__class__()
    make_checkpoint("deepseek_v3", tmp_path)
    kept = {"model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"}
    sizes = {"num_attention_heads": reference.num_attention_heads, "num_hidden_layers": 61}
    file = tmp_path / "config.json"
    edit_config(tmp_path, remove=sorted(set(json.loads(file.read_text())) - kept), **sizes)
    config = load_config(tmp_path)
    assert config.moe is not None
    assert config.latent is not None
    assert config.spec.elements_per_token == 512 + 64
    assert config.latent.query_rank == reference.q_lora_rank
    assert config.num_dense_layers == reference.first_k_dense_replace
    assert config.moe.num_experts == reference.n_routed_experts
    assert config.moe.scaling == reference.routed_scaling_factor


PUBLISHED = {
    "architectures": ["DeepseekV2ForCausalLM"],
    "attention_bias": False,
    "auto_map": {"AutoConfig": "configuration_deepseek.DeepseekV2Config"},
    "first_k_dense_replace": 1,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "intermediate_size": 10944,
    "kv_lora_rank": 512,
    "max_position_embeddings": 163840,
    "model_type": "deepseek_v2",
    "moe_intermediate_size": 1408,
    "moe_layer_freq": 1,
    "n_group": 1,
    "n_routed_experts": 64,
    "n_shared_experts": 2,
    "norm_topk_prob": False,
    "num_attention_heads": 16,
    "num_experts_per_tok": 6,
    "num_hidden_layers": 27,
    "num_key_value_heads": 16,
    "q_lora_rank": None,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "rope_scaling": {
        "beta_fast": 32,
        "beta_slow": 1,
        "factor": 40,
        "mscale": 0.707,
        "mscale_all_dim": 0.707,
        "original_max_position_embeddings": 4096,
        "type": "yarn",
    },
    "scoring_func": "softmax",
    "topk_group": 1,
    "topk_method": "greedy",
    "torch_dtype": "bfloat16",
    "v_head_dim": 128,
    "vocab_size": 102400,
}


def test_a_config_as_deepseek_publishes_it_is_understood(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(PUBLISHED))
    config = load_config(tmp_path)
    assert config.spec.elements_per_token == 576
    assert config.spec.scale == pytest.approx(192**-0.5 * (0.0707 * math.log(40) + 1) ** 2)
    assert config.latent == LatentShape(key_dim=128, value_dim=128, is_interleaved=True)
    assert config.context_len == 163840
    assert config.rope_scaling is not None
    assert config.rope_scaling.amplitude == pytest.approx(1.0)
    assert config.moe is not None
    assert (config.moe.num_groups, config.moe.num_active, config.num_dense_layers) == (1, 6, 1)


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "heads among latents": (
        "bough_gla",
        {"num_latent_heads": 3},
        r"num_attention_heads must be a multiple of num_latent_heads 3, got 4$",
    ),
    "heads among states": (
        "bough_gta",
        {"num_key_value_heads": 3},
        r"num_attention_heads must be a multiple of num_key_value_heads 3, got 4$",
    ),
    "an odd rotary half": (
        "bough_gta",
        {"head_dim": 18},
        r"head_dim must be a multiple of 4, .*18",
    ),
    "an odd rotary key": (
        "bough_gla",
        {"qk_rope_head_dim": 7},
        r"qk_rope_head_dim must be even, got 7$",
    ),
    "no latent": ("bough_gla", {"kv_lora_rank": None}, r"kv_lora_rank must be a whole .* None$"),
    "a latent of another size": (
        "bough_gla",
        {"kv_lora_rank": 48},
        r"kv_a_layernorm.weight must be of shape \[96\], got \[64\]$",
    ),
    "more states than are stored": (
        "bough_gta",
        {"num_key_value_heads": 4},
        r"kv_proj.weight must be of shape \[64, 64\], got \[32, 64\]$",
    ),
    "another number of experts": (
        "deepseek_v3",
        {"n_routed_experts": 16},
        r"must hold \d+ tensors, got none named model.layers.1.mlp.experts.12.down_proj.weight",
    ),
    "experts of another size": (
        "deepseek_v3",
        {"moe_intermediate_size": 40},
        r"experts.*_proj.weight must be of shape \[\d+, \d+\], got \[\d+, \d+\]$",
    ),
    "groups of experts": (
        "deepseek_v3",
        {"n_group": 5},
        r"^num_groups must be a divisor of num_experts 12, got 5$",
    ),
    "another choice of experts": (
        "deepseek_v2",
        {"topk_method": "noaux_tc"},
        r"topk_method must be 'greedy' or 'group_limited_greedy', got 'noaux_tc'$",
    ),
    "experts in some layers": ("deepseek_v3", {"moe_layer_freq": 2}, r"moe_layer_freq must be 1,"),
    "another score": ("deepseek_v3", {"scoring_func": "softmax"}, r"must be 'sigmoid', got softm"),
    "normed softmax weights": (
        "deepseek_v2",
        {"norm_topk_prob": True},
        r"norm_topk_prob must be false, got True$",
    ),
    "biases without a query rank": (
        "deepseek_v3",
        {"attention_bias": True, "q_lora_rank": None},
        r"attention_bias must be false where there is no q_lora_rank, got True$",
    ),
}


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {
        family: make_checkpoint(family, tmp_path_factory.mktemp(family)) for family in TIED_FAMILIES
    }


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_run_is_refused_in_one_line(
    case: str, stored: dict[str, Path], tmp_path: Path
) -> None:
    family, changes, message = REFUSED[case]
    for file in stored[family].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    edit_config(tmp_path, **changes)
    with pytest.raises(ValueError, match=message) as caught:
        load_model(tmp_path)
    assert "\n" not in str(caught.value)
