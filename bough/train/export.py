"""The checkpoint folder: weights, configuration and tokenizer as Hugging Face lays them out."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from tokenizers import Tokenizer

from bough.models.decoder import Decoder
from bough.models.families import FAMILIES
from bough.models.weights import checkpoint_tensors
from bough.train.shape import FAMILY_OF, ModelShape
from bough.train.tokenizer import END_OF_TEXT, save_tokenizer


def check_output(output: Path, *, overwrite: bool) -> None:
    """Refuse a folder that may not be written, before any work is done.

    Raises:
        FileExistsError: `output` exists and `overwrite` is false.
    """
    if output.exists() and not overwrite:
        raise FileExistsError(f"output must be a new folder unless overwriting, got {output}")


@contextmanager
def new_folder(output: Path, *, overwrite: bool) -> Iterator[Path]:
    """Give out a temporary folder that becomes `output` if the block succeeds, else vanishes.

    Args:
        output: the folder to make; its parents are made too.
        overwrite: whether an existing one is replaced.

    Raises:
        FileExistsError: `output` exists and `overwrite` is false.
    """
    check_output(output, overwrite=overwrite)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}-", dir=output.parent) as scratch:
        folder = Path(scratch) / "new"
        folder.mkdir()
        yield folder
        if output.exists():
            os.rename(output, Path(scratch) / "old")
        os.rename(folder, output)


def save_checkpoint(
    folder: Path, decoder: Decoder, shape: ModelShape, tokenizer: Tokenizer
) -> None:
    """Write weights (bf16), configuration and tokenizer as the model's family lays them out.

    Args:
        folder: an existing folder.
        decoder: of `shape`.
        shape: its sizes.
        tokenizer: its tokenizer.
    """
    save_model(folder, decoder, shape, tokenizer.encode(END_OF_TEXT).ids[0])
    save_tokenizer(tokenizer, folder, shape.max_len)


def save_model(folder: Path, decoder: Decoder, shape: ModelShape, end_id: int) -> None:
    """Write what `save_checkpoint` does but for the tokenizer, whose end of text is `end_id`."""
    _write_json(folder / "config.json", config_values(shape, end_id))
    ends = {"bos_token_id": end_id, "eos_token_id": end_id}
    _write_json(folder / "generation_config.json", ends)
    weights = {
        name: weight.to("cpu", torch.bfloat16).contiguous()
        for name, weight in checkpoint_tensors(decoder).items()
    }
    (folder / "model.safetensors").write_bytes(save(weights, metadata={"format": "pt"}))


def config_values(shape: ModelShape, end_id: int) -> dict[str, Any]:
    """Return the contents of config.json.

    Args:
        shape: sizes of the model.
        end_id: the token that ends a text, and that an empty prompt begins with.
    """
    family = FAMILY_OF[shape.attention]
    return {
        "architectures": [FAMILIES[family].architecture],
        "model_type": family,
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.hidden_dim,
        "intermediate_size": shape.mlp_dim,
        "num_hidden_layers": shape.num_layers,
        "num_attention_heads": shape.num_q_heads,
        **_attention_values(shape),
        "hidden_act": "silu",
        "max_position_embeddings": shape.max_len,
        "rms_norm_eps": shape.norm_eps,
        "rope_theta": shape.rope_theta,
        "rope_scaling": None,
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "bos_token_id": end_id,
        "eos_token_id": end_id,
        "dtype": "bfloat16",
    }


def _attention_values(shape: ModelShape) -> dict[str, int | None]:
    latent = shape.model_config.latent
    if latent is None:
        return {"num_key_value_heads": shape.num_kv_heads, "head_dim": shape.head_dim}
    return {
        "num_latent_heads": shape.num_kv_heads,
        "kv_lora_rank": shape.spec.v_dim,
        "q_lora_rank": latent.query_rank,
        "qk_nope_head_dim": latent.key_dim,
        "qk_rope_head_dim": shape.spec.rope_dim,
        "v_head_dim": latent.value_dim,
    }


def _write_json(path: Path, contents: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(contents, indent=2) + "\n", encoding="utf-8")
