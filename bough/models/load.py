"""From a Hugging Face folder to a decoder that is ready to run."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from bough.expect import expect
from bough.models.config import DTYPES, load_config
from bough.models.decoder import Decoder
from bough.models.share import share_config
from bough.models.weights import load_weights
from bough.parallel import Ranks


def load_model(
    path: str | os.PathLike[str],
    *,
    dtype: torch.dtype | None = None,
    device: str | torch.device = "cpu",
    ranks: Ranks | None = None,
) -> Decoder:
    """Load a model for inference, or one rank's share of it.

    Args:
        path: folder with config.json and safetensors weights.
        dtype: float32, bfloat16 or float16; the checkpoint's own when None.
        device: where the parameters go.
        ranks: this rank among those that share the model; None for one rank.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is broken, or describes a model that Bough does not run, or one that
            cannot be divided over the ranks.
    """
    config = load_config(path)
    ranks = Ranks() if ranks is None else ranks
    dtype = config.dtype if dtype is None else dtype
    expect(dtype in DTYPES.values(), "dtype", f"one of {', '.join(DTYPES)}", dtype)
    with torch.device("meta"):
        whole = Decoder(config)
        decoder = Decoder(share_config(config, ranks.size), ranks)
    # Stored buffers keep their own dtype.
    own = {name: buffer.dtype for name, buffer in decoder.named_buffers()}
    empty = {
        name: torch.empty_like(tensor, dtype=own.get(name, dtype), device=device)
        for name, tensor in decoder.state_dict().items()
    }
    decoder.load_state_dict(empty, assign=True)
    load_weights(decoder, Path(path), whole)
    return decoder.to(device).eval().requires_grad_(False)
