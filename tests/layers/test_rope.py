from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from bough.layers.rope import Llama3Scaling, Rotary, YarnScaling, rotate
from bough.models.fields import Fields
from bough.models.rope import read_rope

PARAMETERS: dict[str, dict[str, Any]] = {
    "default": {"rope_type": "default", "rope_theta": 7e4},
    "linear": {"rope_type": "linear", "factor": 4.0},
    "llama3": {
        "rope_type": "llama3",
        "rope_theta": 5e5,
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
    "yarn": {
        "rope_type": "yarn",
        "rope_theta": 1e6,
        "factor": 4.0,
        "original_max_position_embeddings": 32768,
    },
    "yarn-with-everything": {
        "rope_type": "yarn",
        "factor": 3.0,
        "original_max_position_embeddings": 256,
        "beta_fast": 16.0,
        "beta_slow": 2.0,
        "mscale": 0.7,
        "mscale_all_dim": 0.9,
        "truncate": False,
    },
    "yarn-with-attention-factor": {
        "rope_type": "yarn",
        "factor": 2.0,
        "original_max_position_embeddings": 64,
        "attention_factor": 1.25,
    },
    "yarn-for-a-tiny-context": {"rope_type": "yarn", "factor": 2.0},
}


@pytest.mark.parametrize("case", PARAMETERS)
def test_angles_equal_those_of_transformers(case: str) -> None:
    declared_len = 4 if case == "yarn-for-a-tiny-context" else 131072
    config = LlamaConfig(
        hidden_size=512,
        num_attention_heads=4,
        max_position_embeddings=declared_len,
        rope_parameters=dict(PARAMETERS[case]),
    )
    positions = torch.tensor([0, 1, 2, 17, 100, 1023])
    cos, sin = LlamaRotaryEmbedding(config)(torch.zeros(1), positions[None])

    fields = Fields({"rope_parameters": PARAMETERS[case]}, "config.json")
    theta, scaling = read_rope(fields, declared_len)
    rotary = Rotary(128, theta, scaling)
    for got, expected in zip(rotary(positions), (cos[0], sin[0]), strict=True):
        assert got.shape == (6, 1, 64)
        torch.testing.assert_close(got[:, 0], expected[:, :64], atol=2e-4, rtol=0)


def test_scores_of_rotated_vectors_depend_on_distance_only() -> None:
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 1, 3, 32, generator=generator)
    rotary = Rotary(32, 10000.0, None)

    def score(q_position: int, k_position: int) -> torch.Tensor:
        rotated_q = rotate(q, *rotary(torch.tensor([q_position])))
        rotated_k = rotate(k, *rotary(torch.tensor([k_position])))
        return (rotated_q * rotated_k).sum(-1)

    torch.testing.assert_close(score(9, 4), score(105, 100), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(score(9, 4), score(9, 5), atol=1e-2)


def test_rotation_keeps_the_dtype_and_rounds_once() -> None:
    x = torch.randn(5, 2, 16, generator=torch.Generator().manual_seed(1)).bfloat16()
    angles = Rotary(16, 10000.0, None)(torch.arange(5))
    assert torch.equal(rotate(x, *angles), rotate(x.float(), *angles).bfloat16())


def test_frequencies_are_computed_even_where_parameters_are_not() -> None:
    with torch.device("meta"):
        rotary = Rotary(8, 10000.0, None)
    assert rotary.frequencies.device.type == "cpu"


def test_bands_and_ramps_out_of_order_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^high_freq_factor must be above .* 4.0 > 0, got 1.0$"):
        Llama3Scaling(factor=8.0, low_freq_factor=4.0, high_freq_factor=1.0, original_len=64)
    with pytest.raises(ValueError, match=r"^beta_fast must be at least beta_slow 2.0 > 0, got 1"):
        YarnScaling(
            factor=8.0,
            original_len=64,
            beta_fast=1.0,
            beta_slow=2.0,
            amplitude=1.0,
            is_truncated=True,
        )
    with pytest.raises(ValueError, match=r"^factor must be at least 1, got 0.5$"):
        Llama3Scaling(factor=0.5, low_freq_factor=1.0, high_freq_factor=4.0, original_len=64)
