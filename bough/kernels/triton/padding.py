"""How wide a block must be to hold a dimension."""

from __future__ import annotations

import triton


@triton.constexpr_function
def padded(dim: int) -> int:
    """Return the next power of two, 16 at least: what products take."""
    return max(16, triton.next_power_of_2(dim))
