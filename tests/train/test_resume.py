"""A run that is killed goes on from its last state as if nothing had happened."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bough.train import train
from bough.train.run import state_path
from bough.train.state import load_state, save_state
from tests.train.runs import losses, small_config

CHANGES = {"steps": 120, "num_evaluations": 40, "dropout": 0.1, "checkpoint_seconds": 0.0}
CODE = """
import sys
from pathlib import Path
import torch
from bough.train import train
from tests.train.runs import small_config
torch.set_num_threads(1)
train(small_config(Path(sys.argv[1]), **{changes}))
"""


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def test_a_killed_run_ends_with_the_losses_of_one_that_was_not(tmp_path: Path) -> None:
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    command = [sys.executable, "-c", CODE.format(changes=CHANGES), str(killed)]
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, cwd=root, env=environment, stderr=subprocess.PIPE) as process:
        while not state_path(killed).exists() and process.poll() is None:
            time.sleep(0.01)
        time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert not killed.exists()
    _, facts = load_state(state_path(killed))
    assert 0 < facts["progress"]["step"] < 120
    config = small_config(killed, **CHANGES)
    report, expected = train(config), train(replace(config, output=whole))
    assert losses(report.log) == losses(expected.log)
    assert [record["step"] for record in report.log] == list(range(3, 121, 3))
    weights = "model.safetensors"
    assert (killed / weights).read_bytes() == (whole / weights).read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == []


def test_a_state_of_other_settings_is_refused_and_kept(tmp_path: Path) -> None:
    config = small_config(tmp_path / "model", steps=2, num_evaluations=1)
    path = state_path(config.output)
    save_state(path, {}, {"settings": {**config.settings, "learning_rate": 0.25}})
    with pytest.raises(ValueError, match=r"learning_rate of .*unfinished must be 0\.005, as now"):
        train(config)
    assert path.exists()


def test_a_failed_write_leaves_the_state_before_it(tmp_path: Path) -> None:
    path = tmp_path / "state"
    save_state(path, {"x": torch.arange(3)}, {"step": 1})
    with pytest.raises(TypeError):
        save_state(path, {"x": torch.arange(4)}, {"step": object()})
    tensors, facts = load_state(path)
    assert (tensors["x"].tolist(), facts) == ([0, 1, 2], {"step": 1})
