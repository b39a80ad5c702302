from __future__ import annotations

import pytest

from bough.bench.explain import measure_plan, tile_classes
from bough.device import Device
from bough.plan import Plan, make_plan
from bough.spec import AttentionSpec
from bough.workloads import forest_from_text
from tests.bench.problems import problem_of

SPEC = AttentionSpec.gqa(32, 8, 128)


def plan_of(text: str) -> Plan:
    return make_plan(forest_from_text(text), SPEC, Device.named("h100"))


@pytest.mark.parametrize("text", ["1,16|120000,2048", "1,64|8192,512", "3|500"])
def test_classes_of_tiles_add_up_to_the_plan(text: str) -> None:
    plan = plan_of(text)
    schedule, classes = plan.schedule, tile_classes(plan)
    assert sum(found.num_items for found in classes) == len(schedule.items)
    busy = sum(found.busy_us for found in classes)
    assert busy == pytest.approx(schedule.item_seconds.sum() / 132 * 1e6)
    assert sum(found.share for found in classes) == pytest.approx(1.0)
    read = sum(found.read_bytes for found in classes)
    assert read == SPEC.kv_bytes(schedule.num_tokens_read, 2)
    assert max(found.longest_us for found in classes) <= schedule.makespan * 1e6 * 1.001


def test_each_class_says_what_its_tiles_hold() -> None:
    root, leaves = tile_classes(plan_of("1,16|120000,2048"))
    assert (root.height, root.rows) == (64, (64, 64))
    assert (leaves.height, leaves.rows) == (16, (4, 4))
    assert root.num_cuts > 1
    assert root.num_items >= root.num_cuts
    assert root.share > leaves.share > 0


def test_no_tile_holds_more_rows_than_its_height() -> None:
    for found in tile_classes(plan_of("1,4,16,512|1024,256,128,32")):
        assert found.rows[0] <= found.rows[1] <= found.height


def test_a_step_on_the_cpu_is_timed_as_a_whole() -> None:
    problem = problem_of("1,4|32,8")
    plan = make_plan(problem.forest, problem.spec, problem.setup.device)
    measured = measure_plan(plan, problem)
    assert measured.us > 0
    assert measured.kernels == ()


@pytest.mark.gpu
def test_a_step_on_a_gpu_is_timed_kernel_by_kernel() -> None:
    from bough.bench.cases import Case
    from bough.bench.problem import make_problem
    from bough.cli.bench_options import read_setup

    problem = make_problem(
        Case.parse("1,8|4096,512"), read_setup("cuda", "gqa:32:8:128", "bfloat16", 16)
    )
    measured = measure_plan(make_plan(problem.forest, problem.spec, problem.setup.device), problem)
    assert measured.kernels
    assert 0.3 < sum(us for _, us in measured.kernels) / measured.us < 3
