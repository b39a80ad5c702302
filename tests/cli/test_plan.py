from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from bough.cli.app import app
from bough.cli.plan_nodes import node_facts
from bough.cli.plan_tree import worker_loads
from bough.device import Device
from bough.plan import Plan, make_plan
from bough.spec import AttentionSpec
from bough.workloads import forest_from_text

SPEC = AttentionSpec.gqa(32, 8, 128)


def plan_of(text: str) -> Plan:
    return make_plan(forest_from_text(text), SPEC, Device.named("h100"))


@pytest.mark.parametrize("text", ["1,16|4096,128", "1,4,16|8,256,32", "3|500", "1,2,6|64,16,9"])
def test_facts_of_nodes_add_up_to_the_plan(text: str) -> None:
    plan = plan_of(text)
    facts = node_facts(plan)
    assert facts.num_tiles.sum() == plan.schedule.num_tiles
    assert facts.num_read.sum() == plan.schedule.num_tokens_read
    assert (facts.num_read >= facts.num_tokens).all()
    assert not (facts.is_folded & (facts.num_tiles > 0)).any()


def test_loads_of_workers_add_up_to_the_tiles_and_the_makespan() -> None:
    plan = plan_of("1,16|4096,128")
    loads = worker_loads(plan)
    assert len(loads) == 132
    assert loads.max() == pytest.approx(plan.schedule.makespan)
    assert loads.sum() == pytest.approx(plan.schedule.item_seconds.sum())


def test_alike_nodes_are_of_one_kind_and_others_are_not() -> None:
    kind = np.array(node_facts(plan_of("1,2,6|4096,512,100")).kind)
    assert len(set(kind[3:])) == 1
    assert len(set(kind)) == 3


def test_alike_leaves_are_counted_and_the_plan_is_described() -> None:
    result = CliRunner().invoke(app, ["plan", "1,16|4096,128", "--spec", "gqa:32:8:128"])
    assert result.exit_code == 0, result.output
    assert "4,096 tokens  16 queries" in result.output
    assert "... 14 more like this" in result.output
    assert "132 workers of h100" in result.output
    assert plan_of("1,16|4096,128").describe() in result.output


def test_a_folded_node_is_shown_as_such() -> None:
    result = CliRunner().invoke(app, ["plan", "1,4|1,2048"])
    assert "1 tokens  4 queries  folded into its children" in result.output


@pytest.mark.parametrize("text", ["1,16|4096,128", "1,2,200|9,200,1", "1|1"])
@pytest.mark.parametrize("device", ["h100", "cpu"])
def test_the_picture_is_drawn(text: str, device: str, tmp_path: Path) -> None:
    path = tmp_path / "new" / "plan.png"
    result = CliRunner().invoke(app, ["plan", text, "--device", device, "--png", str(path)])
    assert result.exit_code == 0, result.output
    assert path.read_bytes().startswith(b"\x89PNG")


def test_tile_classes_are_explained_without_the_machine() -> None:
    result = CliRunner().invoke(app, ["plan", "1,16|120000,2048", "--explain"])
    assert result.exit_code == 0, result.output
    assert "lower bound" in result.output
    assert "measured" not in result.output


def test_a_plan_for_this_machine_is_measured_too() -> None:
    arguments = ["--spec", "gqa:4:2:16", "--device", "cpu", "--page-size", "4", "--explain"]
    result = CliRunner().invoke(app, ["plan", "1,4|32,8", *arguments])
    assert result.exit_code == 0, result.output
    assert "measured" in result.output
