"""How wide a block must be to hold a dimension."""

from __future__ import annotations

import triton

# Rows of 128 bytes in 16 bits. Of operands with shorter rows, ptxas (of CUDA 12.8, for sm_90a)
# loses halves of descriptors, and products then read elsewhere.
_LEAST = 64


@triton.constexpr_function
def padded(dim: int) -> int:
    """Return the next power of two, 64 at least."""
    return max(_LEAST, triton.next_power_of_2(dim))
