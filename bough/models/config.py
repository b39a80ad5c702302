"""A model's configuration, translated once from a Hugging Face folder. No weights here."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from bough.expect import expect
from bough.layers.latent import LatentShape
from bough.layers.moe import MoEShape
from bough.layers.rope import LinearScaling, RopeScaling, YarnScaling
from bough.models.experts import read_experts
from bough.models.families import FAMILIES, Family
from bough.models.fields import Fields
from bough.models.rope import read_rope
from bough.models.specs import read_attention
from bough.spec import AttentionSpec

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}

_NULL_IS_NONE = {"sliding_window", "q_lora_rank", "n_routed_experts"}


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """All that `Decoder` needs to know of a model.

    Args:
        family: the row of `FAMILIES` it comes from.
        vocab_size: rows of the embedding.
        hidden_size: columns of the hidden states.
        intermediate_size: columns inside the feed-forward.
        num_layers: decoder blocks.
        spec: every layer's attention.
        context_len: most tokens of one sequence, prompt and output together.
        rope_theta: base of the rotary wavelengths.
        rope_scaling: how they reach longer contexts; None leaves them alone.
        norm_eps: epsilon of every RMS norm.
        latent: the expanded form's sizes where attention is latent; None elsewhere.
        moe: the feed-forward's experts; None where every layer has one dense feed-forward.
        num_dense_layers: first layers whose feed-forward is dense although the others have experts.
        num_extra_layers: layers that the checkpoint holds behind the last and that are not run.
        has_qkv_bias, has_output_bias, has_mlp_bias: which projections add biases.
        has_qk_norm: whether each q and k head is normed before the rotation.
        has_tied_embeddings: whether the logits use the embedding matrix.
        dtype: number format that the checkpoint was saved for.
        bos_token_id: token that begins a sequence; None for none.
        eos_token_ids: tokens that end one.
    """

    family: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    spec: AttentionSpec
    context_len: int
    rope_theta: float = 10000.0
    rope_scaling: RopeScaling | None = None
    norm_eps: float = 1e-6
    latent: LatentShape | None = None
    moe: MoEShape | None = None
    num_dense_layers: int = 0
    num_extra_layers: int = 0
    has_qkv_bias: bool = False
    has_output_bias: bool = False
    has_mlp_bias: bool = False
    has_qk_norm: bool = False
    has_tied_embeddings: bool = False
    dtype: torch.dtype = torch.float32
    bos_token_id: int | None = None
    eos_token_ids: tuple[int, ...] = ()


def load_config(path: str | os.PathLike[str]) -> ModelConfig:
    """Translate `config.json` (and `generation_config.json`, where there is one) of a folder.

    Reads what transformers 4 and 5 write. No code of the folder is ever run.

    Raises:
        FileNotFoundError: the folder or its config.json is missing.
        ValueError: a file is broken, or describes a model that Bough does not run.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise FileNotFoundError(f"model must be a folder, got {str(folder)!r}")
    generation_path = folder / "generation_config.json"
    generation = Fields.read(generation_path) if generation_path.exists() else Fields({}, "")
    return read_config(Fields.read(folder / "config.json"), generation)


def read_config(fields: Fields, generation: Fields) -> ModelConfig:
    """Translate the contents of config.json and of generation_config.json.

    Raises:
        ValueError: a value is not what it must be, or the model is none that Bough runs.
    """
    name, family = _family(fields)
    fields = Fields({**family.defaults, **_without_nulls(fields)}, fields.source)
    declared_len = fields.integer("max_position_embeddings")
    rope_theta, rope_scaling = read_rope(fields, declared_len)
    spec, latent = read_attention(fields, family)
    moe, num_dense_layers = read_experts(fields, family)
    bos_token_ids = generation.token_ids("bos_token_id") or fields.token_ids("bos_token_id")
    return ModelConfig(
        family=name,
        vocab_size=fields.integer("vocab_size"),
        hidden_size=fields.integer("hidden_size"),
        intermediate_size=fields.integer("intermediate_size"),
        num_layers=fields.integer("num_hidden_layers"),
        spec=spec,
        context_len=_context_len(declared_len, rope_scaling),
        rope_theta=rope_theta,
        rope_scaling=rope_scaling,
        norm_eps=fields.number("rms_norm_eps", 1e-6),
        latent=latent,
        moe=moe,
        num_dense_layers=num_dense_layers,
        num_extra_layers=fields.integer("num_nextn_predict_layers", 0, minimum=0),
        has_qkv_bias=_has(fields, family.qkv_bias),
        has_output_bias=_has(fields, family.output_bias),
        has_mlp_bias=_has(fields, family.mlp_bias),
        has_qk_norm=family.has_qk_norm,
        has_tied_embeddings=fields.flag("tie_word_embeddings", False),
        dtype=_dtype(fields),
        bos_token_id=bos_token_ids[0] if bos_token_ids else None,
        eos_token_ids=generation.token_ids("eos_token_id") or fields.token_ids("eos_token_id"),
    )


def _without_nulls(fields: Fields) -> dict[str, object]:
    """Drop keys that are null, so that defaults hold; but those whose null means none."""
    return {
        key: value
        for key, value in fields.values.items()
        if value is not None or key in _NULL_IS_NONE
    }


def _family(fields: Fields) -> tuple[str, Family]:
    known = FAMILIES.get(str(fields.values.get("model_type")))
    if known is None or not known.has_published_code:
        fields.refuse_code()
    expect(
        not fields.has("quantization_config"),
        "config.json quantization_config",
        f"absent (weights are read as {', '.join(DTYPES)})",
        fields.values.get("quantization_config"),
    )
    name = fields.text("model_type")
    expect(name in FAMILIES, "config.json model_type", f"one of {', '.join(FAMILIES)}", repr(name))
    family = FAMILIES[name]
    architectures = fields.texts("architectures")
    expect(
        architectures in ([], [family.architecture]),
        "config.json architectures",
        f"[{family.architecture!r}] for {name}",
        architectures,
    )
    activation = fields.text("hidden_act", "silu")
    expect(activation == "silu", "config.json hidden_act", "'silu'", repr(activation))
    return name, family


def _has(fields: Fields, bias: bool | str) -> bool:
    return fields.flag(bias, False) if isinstance(bias, str) else bias


def _context_len(declared_len: int, scaling: RopeScaling | None) -> int:
    """Linear and YaRN configs often declare the length before scaling; Llama 3's after it."""
    if isinstance(scaling, LinearScaling):
        return int(declared_len * scaling.factor)
    if isinstance(scaling, YarnScaling):
        return max(declared_len, int(scaling.original_len * scaling.factor))
    return declared_len


def _dtype(fields: Fields) -> torch.dtype:
    name = fields.text("dtype", fields.text("torch_dtype", "float32")).removeprefix("torch.")
    expect(name in DTYPES, "config.json dtype", f"one of {', '.join(DTYPES)}", repr(name))
    return DTYPES[name]
