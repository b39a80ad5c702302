"""Random models for `bough bench ranks`, and what each device stores of such by the paper."""

from __future__ import annotations

from pathlib import Path

import torch

from bough.models.decoder import Decoder
from bough.train.export import save_model
from bough.train.shape import ModelShape

# KV bytes of a token and layer in bf16 on each of 1, 2 and 4 devices: the 1.47B models of
# arXiv 2505.21487, whose heads are 16 of 128 columns.
PUBLISHED_KV_BYTES = {
    "gqa-4": {1: 2048, 2: 1024, 4: 512},
    "gta-4": {1: 1152, 2: 640, 4: 384},
    "gla-2": {1: 1152, 2: 640, 4: 640},
    "mla": {1: 1152, 2: 1152, 4: 1152},
}
_ATTENTION = {"gqa-4": ("gqa", 4), "gta-4": ("gta", 4), "gla-2": ("gla", 2), "mla": ("mla", 1)}


def write_random_model(folder: Path, variant: str, head_dim: int = 128) -> None:
    """Make a checkpoint folder of a narrow model with 16 heads, whose greedy tokens vary.

    Matrices keep the size of what passes them, and the embedding is small: a tied head would
    otherwise repeat the last token for ever.

    Args:
        folder: the folder to make.
        variant: a key of `PUBLISHED_KV_BYTES`.
        head_dim: columns of a head; the paper's by default.
    """
    attention, num_kv_heads = _ATTENTION[variant]
    shape = ModelShape(
        vocab_size=2048,
        hidden_dim=4 * head_dim,
        num_layers=4,
        attention=attention,
        num_q_heads=16,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        mlp_dim=8 * head_dim,
        max_len=1024,
    )
    decoder = Decoder(shape.model_config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in decoder.named_parameters():
            if weight.dim() == 1:
                weight.fill_(1.0)
            else:
                std = 0.1 if "embed_tokens" in name else weight.shape[-1] ** -0.5
                weight.normal_(std=std, generator=generator)
    folder.mkdir()
    save_model(folder, decoder, shape, end_id=0)
