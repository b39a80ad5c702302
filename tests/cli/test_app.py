from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bough.cli.app import app, main

COMMANDS = (["generate"], ["plan"], ["bench", "kernel"], ["bench", "plan"], ["train"])


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_shows_examples(command: list[str]) -> None:
    result = CliRunner().invoke(app, [*command, "--help"])
    assert result.exit_code == 0
    assert f"bough {' '.join(command)} " in result.output.partition("Examples:")[2]


def test_help_does_not_import_torch() -> None:
    code = (
        "import sys\nfrom bough.cli import main\nsys.argv = ['bough', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("False\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plan", "1,3|8;2"], "forest must be 'nodes per level | tokens per node', got '1,3|8;2'"),
        (["plan", "2,3|8"], "a level must be a multiple of the 2 above it, got 3"),
        (["plan", "1|8", "--spec", "gqa:4"], "spec must be gqa and 3 whole numbers"),
        (["plan", "1|8", "--device", "abacus"], "device must be one of cpu, cuda, h100, h200, "),
        (["plan", "1|8", "--page-size", "0"], "page_size must be at least 1, got 0"),
        (["bench", "kernel", "--suite", "none"], "suite must be one of cpu, "),
        (["bench", "kernel", "--dtype", "int8"], "dtype must be one of float32, "),
        (["bench", "kernel", "--device", "abacus"], "device must be cpu or cuda, "),
        (["plan", "1|8", "--png", "/"], "output must be a file, not a folder, got /"),
        (["bench", "plan", "--json", "/dev/null/x.json"], "/dev/null: "),
        (["generate", "--n", "four"], "Invalid value for '--n': "),
        (["generate", "--model", "."], "Missing option '--prompts'"),
        (["plan"], "Missing argument 'forest'"),
        (["plan", "1|8", "--colour", "green"], "No such option: --colour"),
        (["grow"], "No such command 'grow'"),
        (["bench", "speed"], "No such command 'speed'"),
        (["train", "."], "output must be a new folder unless overwriting, got ."),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", ["bough", *arguments])
    with pytest.raises(SystemExit) as exit_info:
        main()
    assert exit_info.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("bough: ") and error.count("\n") == 1
    assert message in error


@pytest.mark.parametrize("command", [[], ["bench"]], ids=str)
def test_help_takes_the_place_of_a_missing_command(
    command: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["bough", *command])
    with pytest.raises(SystemExit) as exit_info:
        main()
    streams = capsys.readouterr()
    assert exit_info.value.code == 2
    assert "Usage: " in streams.out and streams.err == ""


def test_a_tiny_model_is_trained(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    text = "".join(f"def name_{n}(value):\n    return value + {n}\n\n" for n in range(400))
    for index in range(12):
        (source / f"module_{index}.py").write_text(text, encoding="utf-8")
    output = tmp_path / "model"
    result = CliRunner().invoke(
        app, ["train", str(output), "--steps", "2", "--source", str(source), "--device", "cpu"]
    )
    assert result.exit_code == 0, result.output
    assert (output / "config.json").exists()
    assert "2 steps" in result.output
