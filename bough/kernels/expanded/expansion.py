"""What an expanded prefix consists of. Nothing is computed here."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from bough.expect import expect
from bough.spec import AttentionSpec


@dataclass(frozen=True, kw_only=True, eq=False)
class Expansion:
    """A prefix of latents written out as each head's keys and values, for one step of one layer.

    Keys and values are computed once, from the prefix's latents, and serve step after step; they
    take `num_q_heads * (key_dim + rope_dim + value_dim)` numbers a token.

    Args:
        q: [num_queries, num_q_heads, key_dim + rope_dim] queries before they are absorbed.
        key: [num_tokens, num_q_heads, key_dim + rope_dim], the rotary part last.
        value: [num_tokens, num_q_heads, value_dim].
        value_up: [num_q_heads, latent_dim, value_dim] from a head's latent to its value (`W_uV`).

    Raises:
        ValueError: shapes do not agree, or the prefix is empty.
    """

    q: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    value_up: torch.Tensor

    def __post_init__(self) -> None:
        num_tokens, num_heads, dim = self.key.shape
        expect(num_tokens >= 1, "key", "at least 1 token", num_tokens)
        shape = (num_tokens, num_heads, self.value.shape[-1])
        expect(self.value.shape == shape, "value", str(list(shape)), list(self.value.shape))
        shape = (len(self.q), num_heads, dim)
        expect(self.q.shape == shape, "q", str(list(shape)), list(self.q.shape))
        up = self.value_up
        shape = (num_heads, up.shape[1], self.value.shape[-1])
        expect(up.shape == shape, "value_up", str(list(shape)), list(up.shape))

    def check(self, q: torch.Tensor, spec: AttentionSpec) -> None:
        """See that it fits a step.

        Args:
            q: the step's absorbed queries.
            spec: of the step's plan.

        Raises:
            ValueError: it belongs to another step, or dtypes or devices differ.
            NotImplementedError: the spec is no plain latent.
        """
        if not spec.is_latent or spec.window is not None or spec.softcap is not None or spec.sinks:
            raise NotImplementedError(
                "expansion takes latents without window, softcap and sinks, "
                f"got {spec}; what works: attend without expansion"
            )
        shape = (len(q), spec.num_q_heads)
        expect(self.q.shape[:2] == shape, "expansion.q", str([*shape, "dim"]), list(self.q.shape))
        columns = self.value_up.shape[1]
        expect(columns == spec.v_dim, "value_up", f"of {spec.v_dim} latent columns", columns)
        for name in ("q", "key", "value", "value_up"):
            tensor = getattr(self, name)
            is_met = tensor.dtype == q.dtype and tensor.device == q.device
            found = f"{tensor.dtype} on {tensor.device}"
            expect(is_met, f"expansion.{name}", f"{q.dtype} on {q.device}", found)
