from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bough.bench.calibrate import (
    PROBES,
    READERS,
    Calibration,
    Probe,
    TimedProbe,
    calibrate,
    expected_seconds,
    fit_device,
    fitted_names,
    with_few_workers,
)
from bough.bench.cases import Case
from bough.bench.problem import Setup
from bough.device import PAIRED_TILING, Device, Tiling
from bough.plan import make_plan
from bough.spec import AttentionSpec
from bough.workloads import forest_from_text

SPEC = AttentionSpec.gqa(32, 8, 128)
H100 = Device.named("h100")


@pytest.mark.parametrize("text", ["1,16|8192,128", "1,4,16,512|1024,256,128,32", "1|64"])
def test_a_schedule_is_expected_to_take_what_its_plan_says(text: str) -> None:
    plan = make_plan(forest_from_text(text), SPEC, H100)
    assert expected_seconds(plan, H100) == pytest.approx(plan.schedule.seconds, rel=0.02)


def test_the_same_schedule_takes_longer_on_a_slower_device() -> None:
    plan = make_plan(forest_from_text("1,16|8192,128"), SPEC, H100)
    slower = replace(H100, tile_seconds=4 * H100.tile_seconds, bandwidth=H100.bandwidth / 4)
    assert expected_seconds(plan, slower) > 2 * expected_seconds(plan, H100)


def test_every_probe_is_a_small_forest() -> None:
    for texts in (*PROBES.values(), (READERS,)):
        for text in texts:
            case = Case.parse(text)
            tokens = case.forest(16).num_unique_tokens
            spec = AttentionSpec.parse(case.spec) if case.spec else SPEC
            assert spec.kv_bytes(tokens, 2) < 3e9


def test_numbers_behind_the_times_are_found() -> None:
    hidden = replace(H100, tile_seconds=4e-6, merge_seconds=6e-6)
    texts = [text for text in PROBES["short tiles"] + PROBES["merging"] if " " not in text]
    timed = []
    for text in texts:
        case = Case.parse(text)
        plan = make_plan(case.forest(16), SPEC, H100)
        seconds = expected_seconds(plan, hidden)
        timed.append(TimedProbe(kind="", case=case, plan=plan, seconds=seconds))
    found = fit_device(H100, timed)
    assert found.tile_seconds == pytest.approx(4e-6, rel=0.1)
    assert found.merge_seconds == pytest.approx(6e-6, rel=0.2)


def test_what_was_found_says_how_far_it_is_off(tmp_path: Path) -> None:
    probes = tuple(
        Probe(kind="merging", case=case, measured_us=10.0, expected_us=us)
        for case, us in (("1|4", 10.0), ("1|5", 12.5))
    )
    cpu = replace(H100, torch_device="cpu")
    found = Calibration(before=cpu, device=replace(cpu, tile_seconds=3e-6), probes=probes)
    assert found.worst_error == pytest.approx(0.25)
    assert found.mean_error == pytest.approx(1.25**0.5 - 1)
    found.write(tmp_path / "rates.json", "some GPU")
    facts = json.loads((tmp_path / "rates.json").read_text(encoding="utf-8"))
    assert facts["gpu"] == "some GPU"
    assert facts["rates"]["tile_seconds"] == 3e-6
    assert set(facts["rates"]) == {
        "num_workers",
        "bandwidth",
        "worker_bandwidth",
        *fitted_names(H100),
    }
    assert len(facts["probes"]) == 2


@pytest.mark.parametrize("tiling", [None, PAIRED_TILING])
def test_workers_that_read_alone_have_a_long_leaf_each(tiling: Tiling | None) -> None:
    device = replace(H100, torch_device="cpu", paired_tiling=tiling)
    case = Case.parse(READERS)
    setup = Setup(spec=AttentionSpec.parse(case.spec), device=device, dtype=torch.bfloat16)
    forest = case.forest(setup.page_size)
    few = with_few_workers(setup, forest.num_requests)
    schedule = make_plan(forest, few.spec, few.device, itemsize=2).schedule
    assert len(schedule.items) == few.device.num_workers <= H100.num_workers / 4
    assert schedule.num_partials == 0


@pytest.mark.gpu
def test_a_gpu_is_measured() -> None:
    from bough.cli.bench_options import read_setup

    found = calibrate(read_setup("cuda", "gqa:32:8:128", "bfloat16", 16))
    assert found.mean_error < 0.3
    assert 1e11 < found.device.bandwidth < 2e13
    share = found.device.bandwidth / found.device.num_workers
    assert share < found.device.worker_bandwidth < 10 * share
