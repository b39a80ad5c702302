"""`bough generate --tp`: it starts its own ranks or joins torchrun's, and never outlives one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from bough.cli.app import main
from tests.checkpoints import make_checkpoint
from tests.cli.runs import arguments, generated, run, start, write_prompts, written
from tests.processes import children_of

GREEDY = ["--temperature", 0, "--max-tokens", 8]
LONG = ["--max-tokens", 400, "--n", 9, "--ignore-eos", "--tp", 2]
PROMPTS = [{"prompt_token_ids": [*range(5, 40), last]} for last in (50, 60, 70)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint without a tokenizer, which takes longer to import than all else."""
    return make_checkpoint("llama", tmp_path_factory.mktemp("model"))


def test_two_ranks_write_the_file_of_one(model: Path, tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path, PROMPTS)
    expected = generated(model, prompts, *GREEDY)
    result = run(model, prompts, *GREEDY, "--tp", 2)
    assert result.exit_code == 0, result.output
    assert written(prompts) == expected
    # 3 layers of a key and a value of 16 columns for one stored head, in float32.
    assert "ranks      2; each holds 384 bytes of a token's KV" in result.stdout
    assert not children_of(os.getpid())


def test_torchrun_may_start_the_ranks(model: Path, tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path, PROMPTS)
    expected = generated(model, prompts, *GREEDY)
    prompts.with_name("out.jsonl").unlink()
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*launch, "-m", "bough", *arguments(model, prompts, *GREEDY, "--tp", 2)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert written(prompts) == expected
    assert done.stdout.count("sampled ") == 1


@pytest.mark.parametrize("victim", ["rank 1", "rank 0"])
def test_a_run_whose_rank_is_killed_ends_and_says_so(
    model: Path, tmp_path: Path, victim: str
) -> None:
    prompts = write_prompts(tmp_path, PROMPTS)
    output = tmp_path / "out.jsonl"
    output.write_text("earlier")
    process = start(arguments(model, prompts, *LONG))
    while len(list(tmp_path.iterdir())) < 3:  # until there is a temporary file too
        assert process.poll() is None
        time.sleep(0.02)
    [other] = children_of(process.pid)
    os.kill(other if victim == "rank 1" else process.pid, signal.SIGKILL)
    errors = process.communicate(timeout=20)[1]
    if victim == "rank 1":
        assert process.returncode == 1
        assert errors == "bough: rank 1 of 2 must run to the end, got its end by SIGKILL\n"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "prompts.jsonl"]
    else:
        wait_for_the_end_of(other)
    assert output.read_text() == "earlier"


def test_ctrl_c_ends_all_ranks(model: Path, tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path, PROMPTS)
    process = start(arguments(model, prompts, *LONG))
    while len(list(tmp_path.iterdir())) < 2:
        assert process.poll() is None
        time.sleep(0.02)
    [other] = children_of(process.pid)
    process.send_signal(signal.SIGINT)
    errors = process.communicate(timeout=20)[1]
    assert process.returncode == 130
    assert errors == f"bough: interrupted; {tmp_path / 'out.jsonl'} was left as it was\n"
    wait_for_the_end_of(other)


@pytest.mark.parametrize(
    ("tp", "found"),
    [
        (3, "tp must be a divisor of intermediate_size 64, got 3"),
        (8, "tp must be a divisor of num_q_heads 4, got 8"),
        (0, "tensor_parallel_size must be a whole number of at least 1, got 0"),
    ],
)
def test_ranks_that_cannot_share_the_model_are_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], tp: int, found: str
) -> None:
    model = make_checkpoint("llama", tmp_path / "model", intermediate_size=64)
    capfd.readouterr()
    assert refusal(model, tmp_path, capfd, tp) == f"bough: {found}\n"


def test_weights_that_do_not_fit_are_one_line_of_all_ranks(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = make_checkpoint("llama", tmp_path / "model")
    weights = load_file(model / "model.safetensors")
    name = "model.layers.1.self_attn.k_proj.weight"
    weights[name] = weights[name][:-1].clone()
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    capfd.readouterr()
    found = refusal(model, tmp_path, capfd, tp=2)
    assert found == f"bough: {name} must be of shape [32, 64], got [31, 64]\n"


def refusal(model: Path, folder: Path, capfd: pytest.CaptureFixture[str], tp: int) -> str:
    """All that a command that is refused, and its ranks, write."""
    prompts = write_prompts(folder, [{"prompt_token_ids": [5]}])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["bough", *arguments(model, prompts, "--tp", tp)])
        with pytest.raises(SystemExit) as stop:
            main()
    assert stop.value.code == 2
    assert not prompts.with_name("out.jsonl").exists()
    streams = capfd.readouterr()
    return streams.out + streams.err


def wait_for_the_end_of(pid: int) -> None:
    """Return once a process is gone; the test's time is up where it stays."""
    deadline = time.monotonic() + 20
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline, f"process {pid} is still there"
        time.sleep(0.05)
