from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from bough.models.hf import BoughGLAConfig, BoughGTAForCausalLM
from bough.models.load import load_model
from bough.models.weights import checkpoint_tensors
from tests.checkpoints import make_checkpoint, reference_model

CASES = {
    "gta": ("bough_gta", {}),
    "gla-2": ("bough_gla", {}),
    "mla-with-query-rank": ("bough_gla", {"num_latent_heads": 1, "q_lora_rank": 24}),
    "gta-tied-embeddings": ("bough_gta", {"tie_word_embeddings": True}),
}
TOKENS = torch.arange(24).view(2, 12) * 7 % 300


@pytest.mark.parametrize("case", CASES)
def test_saved_models_come_back_bit_by_bit(case: str, tmp_path: Path) -> None:
    family, overrides = CASES[case]
    make_checkpoint(family, tmp_path / "one", **overrides)
    model, info = AutoModelForCausalLM.from_pretrained(
        tmp_path / "one", output_loading_info=True, dtype="auto"
    )
    assert not any(info.values()), info
    model.save_pretrained(tmp_path / "two", max_shard_size="40KB")
    assert len(list((tmp_path / "two").glob("*.safetensors"))) > 1
    again = reference_model(tmp_path / "two")
    assert torch.equal(again(TOKENS).logits, model(TOKENS).logits)
    one, two = load_model(tmp_path / "one"), load_model(tmp_path / "two")
    assert checkpoint_tensors(one).keys() == load_file(tmp_path / "one/model.safetensors").keys()
    for name, tensor in checkpoint_tensors(one).items():
        assert torch.equal(tensor, checkpoint_tensors(two)[name])
    assert torch.equal(one.logits(one.forward_sequences(TOKENS)), model(TOKENS).logits)


def test_auto_classes_know_the_families_by_their_type(tmp_path: Path) -> None:
    make_checkpoint("bough_gla", tmp_path / "gla")
    config = AutoConfig.from_pretrained(tmp_path / "gla")
    assert isinstance(config, BoughGLAConfig)
    assert (config.num_latent_heads, config.kv_lora_rank) == (2, 32)
    gta = AutoConfig.for_model("bough_gta", hidden_size=64, num_hidden_layers=1, vocab_size=50)
    model = AutoModelForCausalLM.from_config(gta)
    assert isinstance(model, BoughGTAForCausalLM)
    assert model.decoder.spec.elements_per_token == 4 * 64 + 32


def test_new_models_start_small_and_learn(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = BoughGLAConfig(
        vocab_size=300, hidden_size=64, intermediate_size=96, num_hidden_layers=2
    )
    model = AutoModelForCausalLM.from_config(config)
    weight = model.decoder.layers[0].self_attn.kv_b_proj.weight
    assert float(weight.detach().std()) == pytest.approx(0.02, rel=0.1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(8):
        loss = model(TOKENS, labels=TOKENS).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[0] == pytest.approx(5.7, abs=0.3)  # near ln 300
    assert losses[-1] < losses[0] - 0.5


def test_padding_is_taken_last_and_refused_first(tmp_path: Path) -> None:
    model = reference_model(make_checkpoint("bough_gta", tmp_path))
    mask = torch.ones_like(TOKENS)
    mask[0, 8:] = 0
    labels = TOKENS.masked_fill(mask == 0, -100)
    padded = model(TOKENS, attention_mask=mask, labels=labels)
    torch.testing.assert_close(padded.logits[:1, :8], model(TOKENS[:1, :8]).logits)
    with pytest.raises(ValueError, match=r"^attention_mask must be ones, then zeros, got zeros"):
        model(TOKENS, attention_mask=mask.flip(1))
    with pytest.raises(ValueError, match=r"^attention_mask must be ones, of prompts of one length"):
        model.generate(TOKENS, attention_mask=mask, max_new_tokens=1, pad_token_id=0)
