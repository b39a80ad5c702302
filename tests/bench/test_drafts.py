"""Cases with draft trees: what they are, and the same by nodes."""

from __future__ import annotations

import torch

from bough.attend import attend
from bough.bench.cases import Case
from bough.bench.ours import BoughNodes, forest_of_draft_nodes
from bough.bench.sdpa import TorchSdpa
from bough.device import Device
from bough.plan import make_plan
from bough.workloads import beam_tree
from tests.bench.problems import problem_of

CASE = "1,2|32,40 queries=20 drafts page=4 spec=gqa:4:2:16"


def test_a_case_with_drafts_is_read_back_from_its_name() -> None:
    case = Case.parse(CASE)
    assert case.has_drafts
    assert Case.parse(case.name) == case
    assert case.forest(16).rotary_position[:20].max() == 32 + 40 - 20 + 3


def test_a_beam_has_two_drafts_behind_each_of_the_better_half() -> None:
    tree = beam_tree(20, width=4)
    assert tree[:12] == [-1, -1, -1, -1, 0, 0, 1, 1, 4, 4, 5, 5]


def test_draft_nodes_and_dense_masks_give_what_words_give() -> None:
    made = problem_of(CASE)
    plan = make_plan(made.forest, made.spec, Device.cpu())
    expected, _ = attend(made.q, made.kv, plan)
    for contestant in (BoughNodes(), TorchSdpa()):
        assert contestant.refusal(made) is None
        step = contestant.prepare(made)
        torch.testing.assert_close(step.output(step.run()), expected, atol=2e-6, rtol=2e-5)


def test_a_node_a_draft_takes_many_more_tiles() -> None:
    forest = Case.parse("8|1024 queries=64 drafts").forest(16)
    nodes = forest_of_draft_nodes(forest, beam_tree(63))
    assert nodes.num_nodes == 8 * 64
    spec, device = problem_of(CASE).spec, Device.named("h100")
    tiles, many = (make_plan(each, spec, device).schedule.num_tiles for each in (forest, nodes))
    assert many > 4 * tiles
