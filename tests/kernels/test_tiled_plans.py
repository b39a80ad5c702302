"""Plans for the tiles of the Hopper kernel over grouped heads, and what it takes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bough.attend import attend
from bough.device import PAIRED_TILING, Device
from bough.kernels.gluon.grouped.config import TILE_HEIGHTS, block_shape, refusal
from bough.plan import make_plan
from bough.spec import AttentionSpec
from bough.workloads import forest_from_text
from tests.forests import assert_covers_everything_once, random_problem

CARD = replace(Device.named("h100"), torch_device="cpu", paired_tiling=PAIRED_TILING)
GQA = AttentionSpec.gqa(8, 4, 64)


@pytest.mark.parametrize("text", ["1,3|40,7", "1,40|64,5", "1,80|33,2", "5|90"])
def test_items_of_several_heads_cover_everything_once(text: str) -> None:
    plan = make_plan(forest_from_text(text, page_size=4, shuffle_seed=0), GQA, CARD, itemsize=2)
    assert_covers_everything_once(plan)
    assert (plan.schedule.tile_num_heads > 1).any()


@pytest.mark.parametrize("text", ["1,3|40,7", "1,40|64,5", "1,80|33,2"])
def test_the_portable_kernel_takes_items_of_several_heads(text: str) -> None:
    forest = forest_from_text(text, page_size=4, shuffle_seed=0)
    q, kv = random_problem(forest, GQA, 0)
    q, kv = q.to(torch.float16), tuple(plane.to(torch.float16) for plane in kv)
    plan = make_plan(forest, GQA, CARD, itemsize=2)
    out, lse = attend(q, kv, plan, backend="triton")
    exact, exact_lse = attend(q, kv, plan, backend="reference")
    torch.testing.assert_close(out, exact, atol=4e-3, rtol=4e-3)
    torch.testing.assert_close(lse, exact_lse, atol=2e-3, rtol=2e-3)


def test_tall_tiles_have_one_head_an_item_and_others_two_at_least() -> None:
    schedule = make_plan(
        forest_from_text("1,64|8192,512"), AttentionSpec.gqa(32, 8, 128), CARD, itemsize=2
    )
    tall = schedule.schedule.tile_num_queries * 4 > 64
    heads = schedule.schedule.tile_num_heads
    assert set(heads[tall]) == {1}
    assert (heads[~tall] >= 2).all()


def test_short_leaves_cover_all_heads_in_one_item() -> None:
    plan = make_plan(
        forest_from_text("1,1024|2048,32"), AttentionSpec.gqa(32, 8, 128), CARD, itemsize=2
    )
    is_leaf = plan.schedule.tile_num_queries == 1
    assert set(plan.schedule.tile_num_heads[is_leaf]) == {8}


@pytest.mark.parametrize(
    ("spec", "itemsize"),
    [
        (AttentionSpec.gqa(32, 8, 128), 4),
        (AttentionSpec.gqa(32, 8, 96), 1),
        (AttentionSpec.gqa(32, 8, 96), 2),
        (AttentionSpec.gta(32, 8, 64), 2),
        (AttentionSpec.mla(16), 2),
    ],
)
def test_plans_of_what_the_kernel_does_not_take_have_other_tiles(
    spec: AttentionSpec, itemsize: int
) -> None:
    plan = make_plan(forest_from_text("1,64|512,64"), spec, CARD, itemsize=itemsize)
    assert plan.cost.tiling.least_heads == 1


def test_what_the_kernel_does_not_compute_is_refused_by_name() -> None:
    half, hopper = torch.bfloat16, (9, 0)
    assert refusal(AttentionSpec.gqa(32, 8, 128), half, hopper) is None
    assert refusal(AttentionSpec.mha(8, 64), torch.float16, hopper) is None
    assert refusal(AttentionSpec.gta(32, 8, 128), half, hopper) is None
    for reason, spec in {
        "got (96, 0, 96)": AttentionSpec.gqa(32, 8, 96),
        "at most 128 query heads a stored head, got 256": AttentionSpec.gqa(256, 1, 128),
        "got (512, 64, 512)": AttentionSpec.mla(128),
        "got (32, 32, 64)": AttentionSpec.gta(32, 8, 64),
    }.items():
        assert reason in (refusal(spec, half, hopper) or "")
    assert "compute capability 9, got 8.0" in (refusal(GQA, half, (8, 0)) or "")
    assert "got torch.float32" in (refusal(GQA, torch.float32, hopper) or "")


def test_the_kernel_is_compiled_for_the_heights_that_a_plan_has() -> None:
    spec = AttentionSpec.gqa(32, 8, 128)
    plan = make_plan(forest_from_text("1,64|8192,512"), spec, CARD, itemsize=2)
    assert plan.heights == {16, 128}
    block = block_shape(spec, plan.heights, plan.tall_tokens)
    assert (block.HAS_FEW, block.HAS_MANY, block.NUM_PLACES) == (True, True, 1)
    assert not block_shape(spec, frozenset({16}), 0).HAS_MANY
    assert not block_shape(spec, frozenset({64, 128}), 0).HAS_FEW
    assert block_shape(spec, frozenset({128}), 4096).NUM_PLACES == 2
    assert block_shape(spec, frozenset({128}), 64).NUM_PLACES == 1
    assert block_shape(AttentionSpec.mha(8, 64), frozenset(TILE_HEIGHTS), 0).NUM_STAGES == 8
