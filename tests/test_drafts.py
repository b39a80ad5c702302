"""Draft trees: words of what is hidden, and attention over them against a dense mask."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from bough.attend import attend
from bough.device import Device
from bough.drafts import hidden_words, hides, num_hidden
from bough.forest import Forest
from bough.plan import make_plan
from tests.draft_trees import (
    ancestor_mask,
    draft_forest,
    draft_table,
    masked_attention,
    random_parents,
)
from tests.forests import SPECS, random_problem

H100_ON_CPU = replace(Device.named("h100"), torch_device="cpu")


@pytest.mark.parametrize("seed", range(8))
def test_words_hide_all_drafts_but_ancestors(seed: int) -> None:
    parents = random_parents([8, 64, 1, 33, 0], seed)
    words = np.split(hidden_words(parents), np.cumsum([len(tree) for tree in parents])[:-1])
    for tree, of_tree in zip(parents, words, strict=True):
        sees = ancestor_mask(tree, len(tree) + 70).numpy()[1:]
        newest = 70 + np.arange(len(tree))
        distance = newest[:, None] - np.arange(len(tree) + 70)
        assert ((distance >= 0) & ~hides(of_tree[:, None], distance) == sees).all()
        assert (num_hidden(of_tree) == newest + 1 - sees.sum(axis=1)).all()


def test_rotary_positions_count_what_a_draft_sees() -> None:
    table = [[0, 1]]
    forest = Forest.from_page_table(table, [20], 16, [6])
    assert forest.rotary_position.tolist() == [14, 15, 16, 17, 18, 19]
    forest = forest.with_drafts([[-1, 0, 0, -1, 3]])
    assert forest.query_position.tolist() == [14, 15, 16, 17, 18, 19]
    assert forest.rotary_position.tolist() == [14, 15, 16, 16, 15, 16]


@pytest.mark.parametrize(
    ("parents", "message"),
    [
        ([[-1] * 65], "drafts must be at most 64 of a request, got 65"),
        ([[-1, 1]], r"parents\[1\] must be an earlier draft, or -1, got 1"),
        ([[-2]], r"parents\[0\] must be an earlier draft, or -1, got -2"),
        ([], "parents must be one a request, got 0"),
    ],
)
def test_trees_that_are_none_are_refused(parents: list[list[int]], message: str) -> None:
    forest = Forest.from_page_table([[0, 1, 2, 3, 4]], [80], 16, [70])
    with pytest.raises(ValueError, match=message):
        forest.with_drafts(parents)


def test_more_drafts_than_queries_are_refused() -> None:
    forest = Forest.from_page_table([[0]], [9], 16, [2])
    with pytest.raises(ValueError, match=r"drafts\[0\] must be at most the queries of their"):
        forest.with_drafts([[-1, 0, 1]])


def test_windows_over_draft_trees_are_refused() -> None:
    spec = replace(SPECS["gqa"], window=100)
    with pytest.raises(NotImplementedError, match="draft trees take no window, got 100"):
        make_plan(draft_forest([[-1, -1]], 16, 0), spec, Device.cpu())


@pytest.mark.parametrize("device", [Device.cpu(), H100_ON_CPU], ids=["cpu-plan", "h100-plan"])
@pytest.mark.parametrize("page_size", [1, 16])
@pytest.mark.parametrize("variant", ["gqa", "gta", "mla", "gla"])
def test_attention_equals_that_under_a_dense_mask(
    variant: str, page_size: int, device: Device
) -> None:
    spec, parents = SPECS[variant], random_parents([8, 64, 17, 40, 0], seed=page_size)
    forest, table = (make(parents, page_size, 96) for make in (draft_forest, draft_table))
    q, kv = random_problem(forest, spec, 0)
    expected_out, expected_lse = masked_attention(q, kv, spec, table, parents)
    for backend in ("cpu", "reference"):
        out, lse = attend(q, kv, make_plan(forest, spec, device), backend=backend)
        torch.testing.assert_close(out, expected_out, atol=3e-6, rtol=3e-5)
        torch.testing.assert_close(lse, expected_lse, atol=3e-6, rtol=3e-5)


def test_a_context_is_read_once_for_all_drafts_of_a_tile() -> None:
    spec = replace(SPECS["mqa"], num_q_heads=1)
    parents = random_parents([63], seed=3)
    forest = draft_forest(parents, 16, 8192)
    plan = make_plan(forest, spec, H100_ON_CPU)
    assert set(plan.schedule.tile_num_queries.tolist()) == {64}
    assert plan.num_tokens_read == forest.num_unique_tokens
