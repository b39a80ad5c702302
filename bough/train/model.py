"""The decoder as training sees it: its first weights and its loss."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from bough.models.decoder import Decoder
from bough.train.shape import ModelShape

INITIAL_STD = 0.02


@torch.no_grad()
def make_decoder(shape: ModelShape) -> Decoder:
    """Make a decoder on the CPU with weights drawn from torch's global random state.

    Matrices are normal with `INITIAL_STD`, norms are 1. Branches that end in the residual stream
    start smaller, so that its variance does not grow with depth (GPT-2, section 2.3).
    """
    decoder = Decoder(shape.model_config)
    residual_std = INITIAL_STD * (2 * shape.num_layers) ** -0.5
    for name, weight in decoder.named_parameters():
        if weight.dim() == 1:
            weight.fill_(1.0)
        else:
            is_residual = name.endswith(("o_proj.weight", "mlp.down_proj.weight"))
            weight.normal_(std=residual_std if is_residual else INITIAL_STD)
    return decoder


def next_token_loss(decoder: Decoder, windows: Tensor, dropout: float = 0.0) -> Tensor:
    """Return the mean cross-entropy, in nats a token, of predicting each next token.

    Args:
        decoder: in training mode if there is to be dropout.
        windows: [batch_size, seq_len + 1] int64.
        dropout: probability on the embeddings and on every residual branch.
    """
    hidden = decoder.forward_sequences(windows[:, :-1], dropout=dropout)
    logits = decoder.logits(hidden)
    return F.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())
