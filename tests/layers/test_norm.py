from __future__ import annotations

import torch

from bough.layers.norm import GroupedRMSNorm


def test_each_group_is_normed_on_its_own_by_weights_of_its_own() -> None:
    generator = torch.Generator().manual_seed(0)
    norm, plain = GroupedRMSNorm(3, 8, 1e-6), torch.nn.RMSNorm(8, eps=1e-6)
    with torch.no_grad():
        norm.weight.copy_(torch.randn(24, generator=generator))
    x = torch.randn(2, 5, 24, generator=generator)
    for group in range(3):
        at = slice(8 * group, 8 * group + 8)
        torch.testing.assert_close(norm(x)[..., at], plain(x[..., at]) * norm.weight[at])


def test_half_precision_inputs_meet_float32_weights() -> None:
    norm = GroupedRMSNorm(1, 8, 1e-6)
    x = torch.ones(2, 8, dtype=torch.bfloat16)
    torch.testing.assert_close(norm(x), torch.ones(2, 8))
