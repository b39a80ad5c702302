"""Two GPUs generate what one does, and neither outlives the other."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from bough.engine.llm import LLM
from bough.engine.params import SamplingParams
from bough.parallel import Ranks, start_ranks
from tests.checkpoints import make_checkpoint
from tests.cli.runs import arguments, start, write_prompts
from tests.engine.ranked import engine_on, entry
from tests.engine.test_parallel import VARIANTS, finished
from tests.processes import children_of

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs"),
]
DEMO = Path(__file__).parents[2] / "models/stdlib-gqa"
GREEDY = SamplingParams(temperature=0, max_tokens=24, ignore_eos=True)


@pytest.fixture(scope="module")
def ranks() -> Iterator[Ranks]:
    pair = start_ranks(2, "cuda", entry("cuda"))
    yield pair
    pair.close()


def tokens_on_one_and_two(ranks: Ranks, model: Path, dtype: str) -> list[list[int]]:
    """Greedy tokens of all samples in a row, of one GPU and of two."""
    one = finished(LLM(model, device="cuda", dtype=dtype, num_pages=64), GREEDY)
    with engine_on(ranks, model, "cuda", dtype=dtype, num_pages=64) as engine:
        two = finished(engine, GREEDY)
    return [
        [token for output in outputs for token in output.outputs[0].token_ids]
        for outputs in (one, two)
    ]


@pytest.mark.parametrize("variant", ["gqa-2", "gta-2", "gla-2", "mla", "demo"])
def test_greedy_tokens_in_fp32_are_those_of_one_gpu(
    ranks: Ranks, variant: str, tmp_path: Path
) -> None:
    model = DEMO
    if variant != "demo":
        family, overrides = VARIANTS[variant]
        model = make_checkpoint(family, tmp_path, seed=21, **overrides)
    one, two = tokens_on_one_and_two(ranks, model, "float32")
    assert one == two


def test_greedy_tokens_in_bf16_mostly_agree(ranks: Ranks) -> None:
    one, two = tokens_on_one_and_two(ranks, DEMO, "bfloat16")
    share = sum(a == b for a, b in zip(one, two, strict=True)) / len(one)
    print(f"bf16: {share:.1%} of {len(one)} greedy tokens agree")
    assert share > 0.5


def ranks_of(pid: int) -> list[int]:
    """Other ranks that a process started; it also starts compilers of kernels."""
    commands = {child: Path(f"/proc/{child}/cmdline") for child in children_of(pid)}
    return [child for child, path in commands.items() if "worker import serve" in path.read_text()]


def test_a_run_whose_gpu_loses_the_other_ends_and_says_so(tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path, [{"prompt": "def f(x):\n"}])
    command = arguments(DEMO, prompts, "--n", 64, "--max-tokens", 2000, "--ignore-eos", "--tp", 2)
    process = start([*command, "--device", "cuda"])
    while len(list(tmp_path.iterdir())) < 2:  # until there is a temporary file
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    time.sleep(3)  # steps are under way, and GPUs wait for each other's sums
    [other] = ranks_of(process.pid)
    os.kill(other, signal.SIGKILL)
    errors = process.communicate(timeout=20)[1]
    assert process.returncode == 1
    assert "bough: rank 1 of 2 must run to the end, got its end by SIGKILL\n" in errors
    assert not prompts.with_name("out.jsonl").exists()
