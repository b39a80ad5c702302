"""How fast tiles read beside each other: a factor of the time at an even share of the bandwidth."""

from __future__ import annotations

import numpy as np
import pytest

from bough.device import Device
from bough.plan.cost import CostModel
from bough.plan.token_cost import TokenCost
from bough.spec import AttentionSpec


def token_cost(
    reading: list[float], products: list[float], *, is_overlapped: bool = True
) -> TokenCost:
    return TokenCost(
        reading=np.array(reading),
        cached=np.zeros(len(reading)),
        products=np.array(products),
        is_overlapped=is_overlapped,
    )


def test_work_that_waits_for_memory_alone_reads_at_an_even_share() -> None:
    tokens = np.random.default_rng(0).uniform(1, 1e5, 7)
    cost = token_cost(list(np.linspace(1, 3, 7)), list(np.linspace(0.1, 1, 7)))
    assert cost.reading_factor(tokens, 0.1) == 1.0


def test_beside_work_that_computes_a_worker_reads_what_it_can_alone() -> None:
    cost = token_cost([1.0, 1.0], [8.0, 0.1])
    assert cost.reading_factor(np.array([100, 100]), 0.4) == 0.4
    assert cost.seconds(0.4).tolist() == [8.0, 0.4]


@pytest.mark.parametrize("seed", range(8))
def test_the_factor_is_the_least_at_which_all_memory_is_read_in_time(seed: int) -> None:
    draw = np.random.default_rng(seed)
    reading, products = draw.uniform(0.5, 2, 9), draw.uniform(0, 2.5, 9)
    tokens = draw.integers(0, 1000, 9)
    cost = token_cost(list(reading), list(products))
    found, needed = cost.reading_factor(tokens, 0.01), reading @ tokens
    assert cost.seconds(found) @ tokens >= needed * (1 - 1e-12)
    assert found == 0.01 or cost.seconds(found * 0.999) @ tokens < needed


def test_what_several_read_from_the_cache_gets_no_faster() -> None:
    cost = token_cost([1.0, 1.0, 1.0], [0.0, 0.0, 9.0])._replace(cached=np.array([0.0, 0.8, 0.8]))
    assert cost.reading_factor(np.array([10, 10, 90]), 0.25) == 0.25
    assert cost.seconds(0.25).tolist() == [0.25, 0.8, 9.0]


def test_a_device_that_reads_and_computes_in_turn_keeps_even_shares() -> None:
    cost = token_cost([1.0, 1.0], [8.0, 0.1], is_overlapped=False)
    assert cost.reading_factor(np.array([100, 100]), 0.4) == 1.0


def test_no_work_reads_at_an_even_share() -> None:
    assert token_cost([], []).reading_factor(np.array([]), 0.4) == 1.0


@pytest.mark.parametrize("text", ["gla:128:2", "gta:32:8:128"])
def test_a_rotary_key_is_read_from_memory_once_for_all_heads(text: str) -> None:
    spec, device = AttentionSpec.parse(text), Device.named("h100")
    cost = CostModel(spec=spec, device=device, itemsize=2)
    token = cost.per_token(np.array([1]), np.array([1]))
    own = spec.kv_bytes(1, 2) / device.bandwidth
    again = (spec.num_kv_heads - 1) * spec.rope_bytes(2)
    moved = (spec.kv_bytes(1, 2) + again) / device.cache_bandwidth
    assert token.reading[0] == pytest.approx(own * cost.num_workers)
    assert token.cached[0] == pytest.approx(moved * cost.num_workers)
