from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from bough.layers.moe import Experts, MixtureOfExperts, MoEShape, Router

SHAPE = MoEShape(
    num_experts=12,
    num_active=3,
    expert_size=24,
    num_shared=2,
    num_groups=4,
    num_active_groups=2,
    scoring="sigmoid",
    is_normed=True,
    scaling=2.5,
)
HIDDEN = 16


def fill(module: torch.nn.Module, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 3)


def random_input(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, HIDDEN, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_experts_equal_a_loop_over_tokens() -> None:
    experts = Experts(12, HIDDEN, 24)
    fill(experts)
    x, parts = random_input(7), experts.parts()
    chosen = torch.tensor([[5, 0, 3], [5, 0, 3], [0, 5, 11], [2, 5, 0], [5, 6, 2], [5, 4, 3]])
    chosen = torch.cat((chosen, chosen[:1]))
    weights = torch.rand(7, 3, generator=torch.Generator().manual_seed(2))
    expected = torch.zeros_like(x)
    for token in range(7):
        for expert, weight in zip(chosen[token].tolist(), weights[token], strict=True):
            gate, up, down = (
                parts[f"{expert}.{name}_proj.weight"] for name in ("gate", "up", "down")
            )
            expected[token] += weight * (down @ (F.silu(gate @ x[token]) * (up @ x[token])))
    torch.testing.assert_close(experts(x, chosen, weights), expected)


@torch.no_grad()
@pytest.mark.parametrize("scoring", ["softmax", "sigmoid"])
def test_experts_come_from_few_groups_and_the_best_of_them(scoring: Any) -> None:
    router = Router(HIDDEN, replace(SHAPE, scoring=scoring))
    fill(router)
    experts, _ = router(random_input(50))
    groups = experts // 3
    assert all(len(set(row)) <= 2 for row in groups.tolist())
    assert all(len(set(row)) == 3 for row in experts.tolist())
    free, _ = Router.forward(_ungrouped(router), random_input(50))
    assert any(set(a) != set(b) for a, b in zip(experts.tolist(), free.tolist(), strict=True))


def _ungrouped(router: Router) -> Router:
    free = Router(HIDDEN, replace(router.shape, num_groups=1, num_active_groups=1))
    free.load_state_dict(router.state_dict())
    return free


@torch.no_grad()
def test_a_bias_sways_the_choice_but_not_the_weights() -> None:
    router = Router(HIDDEN, replace(SHAPE, is_normed=False, scaling=1.0))
    fill(router)
    x = random_input(5)
    router.e_score_correction_bias[7] = 100.0
    experts, weights = router(x)
    assert (experts == 7).any(dim=1).all()
    scores = (x @ router.weight.T).sigmoid()
    torch.testing.assert_close(weights, scores.gather(1, experts))


@torch.no_grad()
def test_normed_weights_sum_to_their_scaling() -> None:
    router = Router(HIDDEN, SHAPE)
    fill(router)
    _, weights = router(random_input(5))
    torch.testing.assert_close(weights.sum(dim=1), torch.full((5,), 2.5))


@torch.no_grad()
def test_sequences_are_mixed_token_by_token_and_shared_experts_added() -> None:
    mixture = MixtureOfExperts(HIDDEN, SHAPE, has_bias=False)
    fill(mixture)
    x = random_input(2, 4)
    together = mixture(x)
    torch.testing.assert_close(together[1, 2:3], mixture(x[1, 2:3]))
    shared = mixture.shared_experts
    assert shared is not None
    mixture.shared_experts = None
    torch.testing.assert_close(mixture(x) + shared(x), together)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_groups": 5}, r"^num_groups must be a divisor of num_experts 12, got 5$"),
        ({"num_active_groups": 5}, r"^num_active_groups must be at most num_groups 4, got 5$"),
        ({"num_active": 7}, r"^num_active must be at most the 6 experts of .*, got 7$"),
        ({"expert_size": 20}, r"^expert_size must be a multiple of 8, got 20$"),
        (
            {"num_groups": 12, "num_active": 1},
            r"^num_groups must be at most half of .*, got 12$",
        ),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SHAPE, **changes)


def test_a_hidden_size_of_odd_rows_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^hidden_size must be a multiple of 8 .*, got 20$"):
        MixtureOfExperts(20, SHAPE, has_bias=False)
