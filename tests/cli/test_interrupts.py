"""`bough generate`, ended before it is done."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from bough.engine.llm import LLM
from bough.engine.request import Request
from tests.cli.runs import TEXTS, arguments, run, start, write_prompts, written


def test_ctrl_c_leaves_an_earlier_output(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = write_prompts(tmp_path, [TEXTS[0], {**TEXTS[1], "max_tokens": 2}])
    output = tmp_path / "out.jsonl"
    output.write_text("earlier")
    advance = LLM.advance

    def interrupted(llm: LLM) -> list[Request]:
        if llm.stats.num_steps == 5:
            raise KeyboardInterrupt
        return advance(llm)

    monkeypatch.setattr(LLM, "advance", interrupted)
    result = run(model, prompts, "--max-tokens", 12, "--ignore-eos")
    assert result.exit_code == 130
    assert result.stderr == f"bough: interrupted; {output} was left as it was\n"
    assert output.read_text() == "earlier"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "prompts.jsonl"]


def test_a_run_that_is_killed_leaves_an_earlier_output(model: Path, tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path, TEXTS)
    output = tmp_path / "out.jsonl"
    output.write_text("earlier")
    process = start(arguments(model, prompts, "--max-tokens", 400, "--n", 9, "--ignore-eos"))
    while len(list(tmp_path.iterdir())) < 3:  # until there is a temporary file too
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + signal.SIGTERM
    assert errors == f"bough: interrupted; {output} was left as it was\n"
    assert output.read_text() == "earlier"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "prompts.jsonl"]


def test_ctrl_c_keeps_whole_lines_to_resume_from(model: Path, tmp_path: Path) -> None:
    quick = {**TEXTS[0], "max_tokens": 1, "n": 3}
    prompts = write_prompts(tmp_path, [TEXTS[1], quick, TEXTS[2]])
    output = tmp_path / "out.jsonl"
    command = arguments(model, prompts, "--max-tokens", 400, "--n", 4, "--ignore-eos", "--resume")
    process = start(command)
    while not (output.exists() and output.read_bytes()):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert errors == f"bough: interrupted; {output} is kept; go on with the same command\n"
    assert [(line["index"], line["sample"]) for line in written(prompts)] == [
        (1, 0),
        (1, 1),
        (1, 2),
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "prompts.jsonl"]
