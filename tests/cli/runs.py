"""Runs of `bough generate` on a prompts file, with the output beside it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from bough.cli.app import app

TEXTS = [{"prompt": f"def branch(self, {name}):\n"} for name in ("tokens", "leaf", "tree")]


def write_prompts(folder: Path, lines: list[Any]) -> Path:
    """Write a prompts file; strings are lines as they are, all else becomes JSON."""
    path = folder / "prompts.jsonl"
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("\n".join(texts) + "\n")
    return path


def arguments(model: Path, prompts: Path, *options: object) -> list[str]:
    """Of a run that writes out.jsonl beside the prompts."""
    paths = ["--model", model, "--prompts", prompts, "--output", prompts.with_name("out.jsonl")]
    return ["generate", *map(str, [*paths, "--device", "cpu", "--dtype", "float32", *options])]


def run(model: Path, prompts: Path, *options: object) -> Result:
    return CliRunner().invoke(app, arguments(model, prompts, *options))


def written(prompts: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in prompts.with_name("out.jsonl").open()]


def generated(model: Path, prompts: Path, *options: object) -> list[dict[str, Any]]:
    result = run(model, prompts, *options)
    assert result.exit_code == 0, result.output
    return written(prompts)


def start(command: list[str]) -> subprocess.Popen[str]:
    """Run a command in a process of its own."""
    code = "from bough.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, *command], stderr=subprocess.PIPE, text=True
    )
