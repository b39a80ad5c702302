"""Small random checkpoints of each family, and a tiny tokenizer, for tests of models and engine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

import bough.models.hf  # noqa: F401  transformers' Auto classes shall know Bough's families

VOCAB_SIZE = 300
BOS, EOS = 0, 1

COMMON: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
    "tie_word_embeddings": False,
}
# What makes each family itself. Scaled frequencies and the window lie inside 100 tokens.
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 10000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        }
    },
    "mistral": {"sliding_window": 24, "head_dim": 32},
    "qwen2": {"tie_word_embeddings": True},
    "qwen3": {"head_dim": 32, "num_attention_heads": 6, "num_key_value_heads": 3},
}
_LATENT = {"qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16}
_DEEPSEEK: dict[str, Any] = {
    **_LATENT,
    "num_key_value_heads": 4,
    "kv_lora_rank": 32,
    "q_lora_rank": 24,
    "moe_intermediate_size": 32,
    "n_routed_experts": 12,
    "num_experts_per_tok": 3,
    "n_group": 4,
    "topk_group": 2,
    "first_k_dense_replace": 1,
    "routed_scaling_factor": 1.7,
    "rope_parameters": {
        "rope_type": "yarn",
        "rope_theta": 10000.0,
        "factor": 8.0,
        "mscale": 0.7,
        "mscale_all_dim": 1.2,
        "original_max_position_embeddings": 64,
    },
}
# Families whose keys and values are one: Bough's own, and DeepSeek's with experts and YaRN.
TIED_FAMILIES: dict[str, dict[str, Any]] = {
    "bough_gta": {"head_dim": 16},
    "bough_gla": {**_LATENT, "kv_lora_rank": 32},
    "deepseek_v2": {**_DEEPSEEK, "topk_method": "group_limited_greedy"},
    "deepseek_v3": _DEEPSEEK,
}

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "<{{ message.role }}>{{ message.content }}</{{ message.role }}>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def make_checkpoint(family: str, path: Path, seed: int = 0, **overrides: Any) -> Path:
    """Write a random float32 checkpoint in which every matrix, norm and bias matters.

    Args:
        family: a key of `FAMILIES` or `TIED_FAMILIES`.
        path: the folder to make.
        seed: of the weights.
        overrides: keys of config.json; `max_shard_size` splits the weights over several files.

    Returns:
        path.
    """
    max_shard_size = overrides.pop("max_shard_size", "1GB")
    settings = {**COMMON, **(FAMILIES | TIED_FAMILIES)[family], **overrides}
    if family == "bough_gla":
        del settings["num_key_value_heads"]  # latents have a key of their own
    config = AutoConfig.for_model(family, **settings)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(_scaled(name, noise))
        for name, buffer in model.named_buffers():
            if name.endswith("e_score_correction_bias"):
                buffer.copy_(0.3 * torch.randn(buffer.shape, generator=generator))
    model.save_pretrained(path, max_shard_size=max_shard_size)
    return path


def _scaled(name: str, noise: torch.Tensor) -> torch.Tensor:
    if "norm" in name:
        return 1.0 + 0.3 * noise
    if name.endswith("bias"):
        return 0.7 * noise
    if "embed_tokens" in name:
        return 0.15 * noise  # small, else a tied head repeats the last token for ever
    return noise * 1.5 / noise.shape[-1] ** 0.5


def edit_config(path: Path, remove: Sequence[str] = (), **changes: Any) -> None:
    """Change keys of a checkpoint's config.json by hand, as transformers would not write them."""
    file = path / "config.json"
    values = json.loads(file.read_text())
    for key in remove:
        del values[key]
    file.write_text(json.dumps(values | changes))


def reference_model(path: Path) -> PreTrainedModel:
    """Load transformers' own model of a checkpoint, in float32."""
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()


@torch.inference_mode()
def reference_greedy(
    model: PreTrainedModel, prompt: Sequence[int], max_tokens: int, *, ignore_eos: bool = False
) -> list[int]:
    """Continue a prompt greedily by transformers' `generate`; the new tokens, EOS included."""
    ids = torch.tensor([list(prompt)])
    eos = {"eos_token_id": None} if ignore_eos else {}
    out = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=max_tokens,
        do_sample=False,
        pad_token_id=0,
        **eos,
    )
    return out[0, len(prompt) :].tolist()


def make_tokenizer(path: Path, *, chat_template: str | None = CHAT_TEMPLATE) -> Path:
    """Write a byte-level tokenizer of at most `VOCAB_SIZE` tokens beside a checkpoint."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=["<s>", "</s>"],  # BOS and EOS
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    lines = [
        "def branch(self, tokens):",
        "    return self.tokens + tokens",
        "the leaf and the tree",
    ]
    tokenizer.train_from_iterator(lines, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    fast.chat_template = chat_template
    fast.save_pretrained(path)
    return path
