"""What an attention variant stores and reads for one layer. No tensors, no schedule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from bough.expect import expect

# Scales of a token and stored head where numbers have one byte, a byte each: one word.
NUM_SCALES = 4


@dataclass(frozen=True, kw_only=True)
class AttentionSpec:
    """One layer's attention variant.

    A stored token is one row. Untied specs (MHA, MQA, GQA) store a key `[num_kv_heads, nope_dim]`
    and a value `[num_kv_heads, v_dim]`. Tied specs (MLA, GLA, GTA) store one state
    `[num_kv_heads, v_dim]`, which serves as value and, in its first `nope_dim` columns, as key,
    and one rotary key `[rope_dim]` that all heads share.

    Args:
        num_q_heads: query heads.
        num_kv_heads: stored heads; query head `h` reads stored head `h // group_size`.
        nope_dim: columns of the key that come from the stored head.
        rope_dim: columns of the shared rotary key; 0 for untied specs.
        v_dim: columns of the value.
        tied: whether key and value are the same stored row.
        scale: factor on the scores before the softmax.
        window: a query at position p sees positions > p - window; None for all.
        softcap: scores become `softcap * tanh(score / softcap)`; None for none.
        sinks: whether each query head has a learned sink logit, given to `attend`.

    Raises:
        ValueError: a field is out of range or contradicts another.
    """

    num_q_heads: int
    num_kv_heads: int
    nope_dim: int
    rope_dim: int = 0
    v_dim: int
    tied: bool = False
    scale: float
    window: int | None = None
    softcap: float | None = None
    sinks: bool = False

    def __post_init__(self) -> None:
        for name in ("num_q_heads", "num_kv_heads", "nope_dim", "v_dim"):
            expect(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))
        expect(
            self.num_q_heads % self.num_kv_heads == 0,
            "num_q_heads",
            f"a multiple of num_kv_heads {self.num_kv_heads}",
            self.num_q_heads,
        )
        expect(self.rope_dim >= 0, "rope_dim", "at least 0", self.rope_dim)
        expect(self.tied or self.rope_dim == 0, "rope_dim", "0 for an untied spec", self.rope_dim)
        expect(
            not self.tied or self.nope_dim <= self.v_dim,
            "nope_dim",
            f"at most v_dim {self.v_dim} for a tied spec",
            self.nope_dim,
        )
        expect(self.scale > 0, "scale", "positive", self.scale)
        expect(self.window is None or self.window >= 1, "window", "None or >= 1", self.window)
        expect(self.softcap is None or self.softcap > 0, "softcap", "None or > 0", self.softcap)

    @classmethod
    def mha(cls, num_heads: int, head_dim: int) -> AttentionSpec:
        """Multi-head attention: every query head has a stored head of its own."""
        return cls.gqa(num_heads, num_heads, head_dim)

    @classmethod
    def mqa(cls, num_q_heads: int, head_dim: int) -> AttentionSpec:
        """Multi-query attention: one stored head for all query heads."""
        return cls.gqa(num_q_heads, 1, head_dim)

    @classmethod
    def gqa(cls, num_q_heads: int, num_kv_heads: int, head_dim: int) -> AttentionSpec:
        """Grouped-query attention: keys and values apart, `num_kv_heads` of each."""
        return cls(
            num_q_heads=num_q_heads,
            num_kv_heads=num_kv_heads,
            nope_dim=head_dim,
            v_dim=head_dim,
            scale=_inverse_sqrt(head_dim),
        )

    @classmethod
    def gta(cls, num_q_heads: int, num_kv_heads: int, head_dim: int) -> AttentionSpec:
        """Grouped-tied attention (arXiv 2505.21487, section 3.3.1): half the key is the value."""
        expect(head_dim % 2 == 0, "head_dim", "even", head_dim)
        return cls(
            num_q_heads=num_q_heads,
            num_kv_heads=num_kv_heads,
            nope_dim=head_dim // 2,
            rope_dim=head_dim // 2,
            v_dim=head_dim,
            tied=True,
            scale=_inverse_sqrt(head_dim),
        )

    @classmethod
    def mla(
        cls, num_q_heads: int, latent_dim: int = 512, rope_dim: int = 64, head_dim: int = 128
    ) -> AttentionSpec:
        """Multi-head latent attention in its absorbed form; `head_dim` only sets the scale."""
        return cls.gla(num_q_heads, 1, latent_dim, rope_dim, head_dim)

    @classmethod
    def gla(
        cls,
        num_q_heads: int,
        num_latent_heads: int,
        latent_dim: int = 256,
        rope_dim: int = 64,
        head_dim: int = 128,
    ) -> AttentionSpec:
        """Grouped latent attention (arXiv 2505.21487, section 3.3.2) in its absorbed form."""
        return cls(
            num_q_heads=num_q_heads,
            num_kv_heads=num_latent_heads,
            nope_dim=latent_dim,
            rope_dim=rope_dim,
            v_dim=latent_dim,
            tied=True,
            scale=_inverse_sqrt(head_dim + rope_dim),
        )

    @classmethod
    def parse(cls, text: str) -> AttentionSpec:
        """Read a constructor call from the command line, such as `gqa:32:8:128`.

        Raises:
            ValueError: the variant is unknown, or its sizes are not what the constructor takes.
        """
        constructors: dict[str, tuple[Callable[..., AttentionSpec], int, int]] = {
            "mha": (cls.mha, 2, 2),
            "mqa": (cls.mqa, 2, 2),
            "gqa": (cls.gqa, 3, 3),
            "gta": (cls.gta, 3, 3),
            "mla": (cls.mla, 1, 4),
            "gla": (cls.gla, 2, 5),
        }
        variant, *sizes = text.split(":")
        if variant not in constructors:
            raise ValueError(f"spec must start with one of {', '.join(constructors)}, got {text!r}")
        constructor, fewest, most = constructors[variant]
        is_valid = fewest <= len(sizes) <= most and all(size.isdecimal() for size in sizes)
        if not is_valid:
            count = f"{fewest}" if fewest == most else f"{fewest} to {most}"
            raise ValueError(
                f"spec must be {variant} and {count} whole numbers joined by ':', got {text!r}"
            )
        return constructor(*(int(size) for size in sizes))

    @property
    def group_size(self) -> int:
        """Query heads per stored head."""
        return self.num_q_heads // self.num_kv_heads

    @property
    def is_latent(self) -> bool:
        """Whether a key holds the whole value, as in MLA and GLA."""
        return self.tied and self.nope_dim == self.v_dim

    @property
    def qk_dim(self) -> int:
        """Columns of a query and of the key it meets."""
        return self.nope_dim + self.rope_dim

    @property
    def elements_per_token(self) -> int:
        """Stored elements per token and layer."""
        stored_dim = self.v_dim if self.tied else self.nope_dim + self.v_dim
        return self.num_kv_heads * stored_dim + self.rope_dim

    def kv_bytes(self, num_tokens: int, itemsize: int) -> int:
        """Bytes that `num_tokens` stored tokens take in one layer, at `itemsize` bytes a number.

        At one byte they are a `QuantizedKV`: scales count, and the rotary key has 16 bits.
        """
        num_bytes = self.elements_per_token * itemsize
        if itemsize == 1:
            num_bytes += self.num_kv_heads * NUM_SCALES + self.rope_bytes(1) - self.rope_dim
        return num_tokens * num_bytes

    def rope_bytes(self, itemsize: int) -> int:
        """Bytes of a stored token's rotary key where others take `itemsize` bytes a number."""
        return self.rope_dim * max(2, itemsize)

    def qo_bytes(self, num_queries: int, itemsize: int) -> int:
        """Bytes of the queries read and the outputs written in one layer."""
        return num_queries * self.num_q_heads * (self.qk_dim + self.v_dim) * itemsize

    def flops(self, num_pairs: int) -> int:
        """FLOPs of both products over `num_pairs` (query token, visible KV token) pairs."""
        return 2 * num_pairs * self.num_q_heads * (self.qk_dim + self.v_dim)

    def shard(self, tp: int) -> AttentionSpec:
        """Return the spec of one of `tp` tensor-parallel ranks.

        Stored heads are split; where there are fewer of them than ranks, each is copied to
        `tp / num_kv_heads` ranks. The shared rotary key is on every rank.

        Raises:
            ValueError: heads cannot be divided over the ranks.
        """
        expect(tp >= 1, "tp", "at least 1", tp)
        expect(self.num_q_heads % tp == 0, "tp", f"a divisor of num_q_heads {self.num_q_heads}", tp)
        is_divisible = self.num_kv_heads % tp == 0 or tp % self.num_kv_heads == 0
        expect(
            is_divisible, "tp", f"a divisor or a multiple of num_kv_heads {self.num_kv_heads}", tp
        )
        return replace(
            self,
            num_q_heads=self.num_q_heads // tp,
            num_kv_heads=max(1, self.num_kv_heads // tp),
        )


def _inverse_sqrt(dim: int) -> float:
    expect(dim >= 1, "head_dim", "at least 1", dim)
    return float(dim) ** -0.5
