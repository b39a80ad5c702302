"""Rotary position embedding: frequencies, their scaling to longer contexts, the rotation itself."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from bough.expect import expect


@dataclass(frozen=True, kw_only=True)
class LinearScaling:
    """Positions count as `1 / factor` of themselves (arXiv 2306.15595).

    Args:
        factor: how many times longer contexts become.
    """

    factor: float

    def __post_init__(self) -> None:
        _expect_factor(self.factor)

    @property
    def amplitude(self) -> float:
        """Factor on cosines and sines."""
        return 1.0

    def scale(self, frequencies: torch.Tensor, theta: float) -> torch.Tensor:
        """Scale [head_dim / 2] angles per position."""
        return frequencies / self.factor


@dataclass(frozen=True, kw_only=True)
class Llama3Scaling:
    """Slow frequencies are divided by `factor`, fast ones kept, those between interpolated.

    The band is that of Llama 3.1 (arXiv 2407.21783 and its reference code): a frequency is slow if
    it turns less than `low_freq_factor` times in `original_len` positions, fast if more than
    `high_freq_factor` times.

    Args:
        factor: divisor of the slow frequencies.
        low_freq_factor: turns below which a frequency is slow.
        high_freq_factor: turns above which a frequency is fast.
        original_len: positions of the context that the model was first trained on.
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_len: int

    def __post_init__(self) -> None:
        _expect_factor(self.factor)
        if not 0 < self.low_freq_factor < self.high_freq_factor:
            raise ValueError(
                f"high_freq_factor must be above low_freq_factor {self.low_freq_factor} > 0, "
                f"got {self.high_freq_factor}"
            )

    @property
    def amplitude(self) -> float:
        """Factor on cosines and sines."""
        return 1.0

    def scale(self, frequencies: torch.Tensor, theta: float) -> torch.Tensor:
        """Scale [head_dim / 2] angles per position."""
        turns = self.original_len * frequencies / (2 * math.pi)
        band = self.high_freq_factor - self.low_freq_factor
        kept = ((turns - self.low_freq_factor) / band).clamp(0, 1)
        return (1 - kept) * frequencies / self.factor + kept * frequencies


@dataclass(frozen=True, kw_only=True)
class YarnScaling:
    """YaRN (arXiv 2309.00071): interpolate by a ramp over the columns, and sharpen the scores.

    Args:
        factor: how many times longer contexts become.
        original_len: positions of the context that the model was first trained on.
        beta_fast: columns that turn more often than this in `original_len` positions are kept.
        beta_slow: columns that turn less often than this are divided by `factor`.
        amplitude: factor on cosines and sines.
        is_truncated: whether the ramp begins and ends at whole columns.
    """

    factor: float
    original_len: int
    beta_fast: float
    beta_slow: float
    amplitude: float
    is_truncated: bool

    def __post_init__(self) -> None:
        _expect_factor(self.factor)
        if not 0 < self.beta_slow <= self.beta_fast:
            raise ValueError(
                f"beta_fast must be at least beta_slow {self.beta_slow} > 0, got {self.beta_fast}"
            )

    def scale(self, frequencies: torch.Tensor, theta: float) -> torch.Tensor:
        """Scale [head_dim / 2] angles per position."""
        dim = 2 * len(frequencies)
        low = self._column(self.beta_fast, dim, theta)
        high = self._column(self.beta_slow, dim, theta)
        if self.is_truncated:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, dim - 1)
        width = high - low if high != low else 0.001
        columns = torch.arange(len(frequencies), dtype=torch.float32, device=frequencies.device)
        kept = 1 - ((columns - low) / width).clamp(0, 1)
        return (1 - kept) * frequencies / self.factor + kept * frequencies

    def _column(self, num_turns: float, dim: int, theta: float) -> float:
        """Column (not rounded) whose frequency turns `num_turns` times in `original_len`."""
        wavelength = self.original_len / (2 * math.pi * num_turns)
        return dim * math.log(wavelength) / (2 * math.log(theta))


RopeScaling = LinearScaling | Llama3Scaling | YarnScaling
Rotation = tuple[torch.Tensor, torch.Tensor]


class Rotary(nn.Module):
    """Cosines and sines of each token's angles, computed once a step for all layers.

    Args:
        head_dim: columns that are rotated, column i together with column `i + head_dim / 2`.
        theta: base of the geometric series of wavelengths.
        scaling: how the frequencies reach longer contexts; None leaves them alone.
    """

    frequencies: torch.Tensor

    def __init__(self, head_dim: int, theta: float, scaling: RopeScaling | None) -> None:
        super().__init__()
        expect(head_dim % 2 == 0, "rotary dimensions", "even in number", head_dim)
        self.head_dim = head_dim
        self.theta = theta
        self.scaling = scaling
        self.amplitude = 1.0 if scaling is None else scaling.amplitude
        self.register_buffer("frequencies", self.compute_frequencies(), persistent=False)

    def compute_frequencies(self) -> torch.Tensor:
        """Angles per position, [head_dim / 2] float32, on the CPU even under another default."""
        columns = torch.arange(0, self.head_dim, 2, dtype=torch.float32, device="cpu")
        frequencies = 1.0 / self.theta ** (columns / self.head_dim)
        return frequencies if self.scaling is None else self.scaling.scale(frequencies, self.theta)

    def forward(self, positions: torch.Tensor) -> Rotation:
        """Angles of positions [num_tokens] int64.

        Returns:
            cos, sin: each [num_tokens, 1, head_dim / 2] float32, the same for all heads.
        """
        angles = (positions[:, None].float() * self.frequencies)[:, None]
        return angles.cos() * self.amplitude, angles.sin() * self.amplitude


def rotate(
    x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, *, is_interleaved: bool = False
) -> torch.Tensor:
    """Rotate the halves of each head against each other (arXiv 2104.09864), in float32 or better.

    Scores do not change when queries and keys are permuted alike, so columns that lie pair by pair
    come out half by half.

    Args:
        x: [..., num_tokens, num_heads, head_dim].
        cos, sin: [num_tokens, 1, head_dim / 2] float32, from `Rotary`.
        is_interleaved: whether columns 2i and 2i + 1 of x make a pair; else i and
            i + head_dim / 2.

    Returns:
        [..., num_tokens, num_heads, head_dim] of x's dtype, pairs half by half.
    """
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    halves = wide.unflatten(-1, (-1, 2)).unbind(-1) if is_interleaved else wide.chunk(2, dim=-1)
    first, second = halves
    rotated = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
    return rotated.to(x.dtype)


def _expect_factor(factor: float) -> None:
    if not factor >= 1:
        raise ValueError(f"factor must be at least 1, got {factor}")
