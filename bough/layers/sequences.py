"""Attention over whole sequences without a cache, as training and transformers' models use it."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from bough.spec import AttentionSpec


def attend_sequences(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, spec: AttentionSpec
) -> torch.Tensor:
    """Attend every token of each sequence to itself and those before it; differentiable.

    Args:
        q: [batch_size, seq_len, num_q_heads, dim], rotary already applied.
        k: [batch_size, seq_len, num_heads, dim]; num_heads divides num_q_heads.
        v: [batch_size, seq_len, num_heads, v_dim].
        spec: for its scale and window; softcap and sinks must be absent.

    Returns:
        [batch_size, seq_len, num_q_heads, v_dim].
    """
    assert spec.softcap is None and not spec.sinks
    out = F.scaled_dot_product_attention(
        q.transpose(1, 2),
        k.transpose(1, 2),
        v.transpose(1, 2),
        attn_mask=_window_mask(q, spec.window),
        is_causal=spec.window is None,
        scale=spec.scale,
        enable_gqa=q.shape[2] != k.shape[2],
    )
    return out.transpose(1, 2)


def _window_mask(q: torch.Tensor, window: int | None) -> torch.Tensor | None:
    """[seq_len, seq_len] whether a query (row) sees a key; None for all that came before."""
    if window is None:
        return None
    positions = torch.arange(q.shape[1], device=q.device)
    distance = positions[:, None] - positions
    return (distance >= 0) & (distance < window)
