from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from bough.layers.linear import FusedLinear


@pytest.mark.parametrize("has_bias", [False, True], ids=["plain", "biased"])
def test_fused_projections_equal_separate_ones(has_bias: bool) -> None:
    fused = FusedLinear(7, {"a": 5, "b": 3, "c": 1}, has_bias=has_bias)
    with torch.no_grad():
        for parameter in fused.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(0))
    x = torch.randn(4, 7, generator=torch.Generator().manual_seed(1))
    weights = fused.parts(fused.weight)
    biases = fused.parts(fused.bias) if fused.bias is not None else dict.fromkeys("abc")
    assert list(weights) == ["a", "b", "c"]
    for got, name in zip(fused(x), "abc", strict=True):
        torch.testing.assert_close(got, F.linear(x, weights[name], biases[name]))


def test_parts_are_views_of_the_fused_parameter() -> None:
    fused = FusedLinear(2, {"a": 2, "b": 1}, has_bias=False)
    with torch.no_grad():
        fused.parts(fused.weight)["b"].fill_(3.0)
    assert fused.weight[2].tolist() == [3.0, 3.0]
