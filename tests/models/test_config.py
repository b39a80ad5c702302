from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bough.layers.rope import LinearScaling, Llama3Scaling, YarnScaling
from bough.models.config import ModelConfig, load_config

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 2048,
}


def family(model_type: str) -> dict[str, Any]:
    names = {"mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3"}
    return LLAMA | {
        "model_type": model_type,
        "architectures": [f"{names[model_type]}ForCausalLM"],
    }


def load(folder: Path, values: dict[str, Any], generation: Any = None) -> ModelConfig:
    (folder / "config.json").write_text(json.dumps(values))
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    return load_config(folder)


def test_what_a_config_leaves_out_takes_the_family_s_defaults(tmp_path: Path) -> None:
    config = load(tmp_path, LLAMA)
    assert (config.spec.num_q_heads, config.spec.num_kv_heads, config.spec.nope_dim) == (4, 4, 16)
    assert config.rope_theta == 10000.0
    assert config.rope_scaling is None
    assert config.norm_eps == 1e-6
    assert config.dtype == torch.float32
    assert config.context_len == 2048
    assert (config.bos_token_id, config.eos_token_ids) == (1, (2,))
    assert not (config.has_qkv_bias or config.has_output_bias or config.has_mlp_bias)
    assert not config.has_tied_embeddings
    assert load(tmp_path, family("mistral")).spec.window == 4096
    qwen3 = load(tmp_path, family("qwen3"))
    assert (qwen3.spec.nope_dim, qwen3.has_qk_norm, qwen3.eos_token_ids) == (128, True, ())


SCALINGS: dict[str, tuple[dict[str, Any], Any, int]] = {
    "linear": ({"factor": 2.0}, LinearScaling(factor=2.0), 4096),
    "llama3": (
        {
            "factor": 8,
            "low_freq_factor": 1,
            "high_freq_factor": 4,
            "original_max_position_embeddings": 512,
        },
        Llama3Scaling(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_len=512),
        2048,
    ),
    "yarn": (
        {"factor": 8.0, "original_max_position_embeddings": 512, "attention_factor": 1.5},
        YarnScaling(
            factor=8.0,
            original_len=512,
            beta_fast=32.0,
            beta_slow=1.0,
            amplitude=1.5,
            is_truncated=True,
        ),
        4096,
    ),
}


@pytest.mark.parametrize("kind", SCALINGS)
def test_configs_of_transformers_4_and_5_say_the_same(kind: str, tmp_path: Path) -> None:
    scaling, expected, context_len = SCALINGS[kind]
    old = {"torch_dtype": "bfloat16", "rope_theta": 5e5, "rope_scaling": scaling | {"type": kind}}
    new = {
        "dtype": "bfloat16",
        "rope_parameters": scaling | {"rope_type": kind, "rope_theta": 5e5},
    }
    config = load(tmp_path, LLAMA | new)
    assert config == load(tmp_path, LLAMA | old)
    assert config.dtype == torch.bfloat16
    assert (config.rope_theta, config.rope_scaling) == (5e5, expected)
    assert config.context_len == context_len


def test_null_scaling_is_no_scaling(tmp_path: Path) -> None:
    config = load(tmp_path, LLAMA | {"rope_scaling": None, "rope_theta": 3e4})
    assert (config.rope_theta, config.rope_scaling) == (3e4, None)


def test_biases_follow_the_family_and_its_keys(tmp_path: Path) -> None:
    config = load(tmp_path, LLAMA | {"attention_bias": True})
    assert (config.has_qkv_bias, config.has_output_bias, config.has_mlp_bias) == (True, True, False)
    assert load(tmp_path, LLAMA | {"mlp_bias": True}).has_mlp_bias
    config = load(tmp_path, family("qwen2"))
    assert (config.has_qkv_bias, config.has_output_bias) == (True, False)
    assert not load(tmp_path, family("mistral")).has_qkv_bias


@pytest.mark.parametrize(
    ("model_type", "changes", "window"),
    [
        ("mistral", {"sliding_window": 100}, 100),
        ("mistral", {"sliding_window": None}, None),
        ("qwen2", {"sliding_window": 100, "max_window_layers": 0}, None),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 0}, 9),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 9}, None),
        ("qwen3", {"use_sliding_window": True, "layer_types": ["full_attention"] * 4}, None),
        (
            "qwen3",
            {
                "use_sliding_window": True,
                "sliding_window": 9,
                "layer_types": ["sliding_attention"] * 4,
            },
            9,
        ),
    ],
)
def test_a_window_counts_where_every_layer_has_it(
    model_type: str, changes: dict[str, Any], window: int | None, tmp_path: Path
) -> None:
    assert load(tmp_path, family(model_type) | changes).spec.window == window


@pytest.mark.parametrize(
    ("in_config", "in_generation", "expected"),
    [
        (7, None, (7,)),
        ([7, 8], None, (7, 8)),
        (7, {"eos_token_id": [8, 9]}, (8, 9)),
        (7, {"eos_token_id": 9}, (9,)),
        ([7], {"temperature": 0.5}, (7,)),
        (None, {"eos_token_id": 9}, (9,)),
        (0, None, (0,)),
    ],
)
def test_the_generation_config_says_first_what_ends_a_sequence(
    in_config: Any, in_generation: Any, expected: tuple[int, ...], tmp_path: Path
) -> None:
    config = load(tmp_path, family("qwen2") | {"eos_token_id": in_config}, in_generation)
    assert config.eos_token_ids == expected


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "code": ({"auto_map": {"AutoModel": "x.Y"}}, r"auto_map must be absent .* got {'AutoM"),
    "quantised weights": (
        {"quantization_config": {"quant_method": "awq"}},
        r"quantization_config must be absent .* 'awq'",
    ),
    "an unknown type": ({"model_type": "mamba"}, r"model_type must be one of llama, .* 'mamba'"),
    "no type": ({"model_type": None}, r"model_type must be a string, got None"),
    "another architecture": (
        {"architectures": ["LlamaForSequenceClassification"]},
        r"architectures must be \['LlamaForCausalLM'\] for llama, got \['LlamaForSeq",
    ),
    "another activation": ({"hidden_act": "gelu"}, r"hidden_act must be 'silu', got 'gelu'"),
    "a missing size": ({"hidden_size": None}, r"hidden_size must be a whole number .* got None"),
    "a size as text": ({"hidden_size": "64"}, r"hidden_size must be a whole .* got '64'"),
    "a negative size": ({"vocab_size": -1}, r"vocab_size must be a whole .* 1 up, got -1"),
    "a truth value as size": ({"vocab_size": True}, r"vocab_size must be a whole .* got True"),
    "an infinite base": ({"rope_theta": float("inf")}, r"rope_theta must be a positive .* inf"),
    "uneven heads": ({"num_attention_heads": 5}, r"hidden_size must be a multiple .* 5 .* got 64"),
    "uneven groups": (
        {"num_key_value_heads": 3},
        r"num_attention_heads must be .* 3, got 4",
    ),
    "an odd head": ({"head_dim": 15}, r"head_dim must be even, got 15"),
    "an unknown dtype": ({"dtype": "float8"}, r"dtype must be one of float32, .* got 'float8'"),
    "a bias as text": ({"attention_bias": "no"}, r"attention_bias must be true or false, got 'no'"),
    "a bad end token": ({"eos_token_id": "</s>"}, r"eos_token_id must be a token id .* '</s>'"),
    "dynamic rope": (
        {"rope_scaling": {"type": "dynamic", "factor": 2.0}},
        r"rope_scaling rope_type must be one of default, linear, llama3, yarn, got 'dynamic'",
    ),
    "multimodal rope": (
        {"rope_parameters": {"rope_type": "default", "mrope_section": [8, 8]}},
        r"rope_parameters must hold only .* got mrope_section",
    ),
    "half-rotated heads": (
        {"partial_rotary_factor": 0.5},
        r"partial_rotary_factor must be 1, got 0.5",
    ),
    "scaling without factor": (
        {"rope_scaling": {"rope_type": "linear"}},
        r"factor must be a positive number, got None",
    ),
    "windows in llama": (
        {"layer_types": ["sliding_attention"] * 4},
        r"layer_types must be full_attention where sliding_window is None, got sliding",
    ),
    "mixed layers": (
        family("qwen3")
        | {
            "use_sliding_window": True,
            "layer_types": ["full_attention"] * 3 + ["sliding_attention"],
        },
        r"layer_types must be the same in every layer, got 3 full_attention, 1 sliding_attention",
    ),
    "windows from a layer on": (
        family("qwen2") | {"use_sliding_window": True, "max_window_layers": 1},
        r"layer_types must be the same in every layer, got 1 full_attention, 3 sliding_attention",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_models_that_cannot_run_are_refused_in_one_line(case: str, tmp_path: Path) -> None:
    changes, message = REFUSED[case]
    with pytest.raises(ValueError, match=message) as caught:
        load(tmp_path, LLAMA | changes)
    assert "\n" not in str(caught.value)


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"^model must be a folder, got '.*nowhere'$"):
        load_config(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"^config.json must be in .*, got no such file$"):
        load_config(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": ')
    with pytest.raises(ValueError, match=r"config.json must be JSON, got Expecting value"):
        load_config(tmp_path)
    (tmp_path / "config.json").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"config.json must be JSON, got .*codec"):
        load_config(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ValueError, match=r"config.json must be a JSON object, got list"):
        load_config(tmp_path)
    with pytest.raises(ValueError, match=r"generation_config.json must be a JSON object, got int"):
        load(tmp_path, LLAMA, 3)


def test_configs_compare_by_value(tmp_path: Path) -> None:
    config = load(tmp_path, LLAMA)
    assert config == load_config(str(tmp_path))
    assert config != replace(config, vocab_size=301)
