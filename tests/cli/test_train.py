from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bough.cli.app import main


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config", "huge"], "config must be one of demo, demo-gla, gla-2, "),
        (["--config", "none.toml"], "none.toml: No such file"),
        (["--suite", "speed"], "suite must be quality, got 'speed'"),
        (["--suite", "quality", "--seed", "1"], "--seed must be left out with --suite, got 1"),
        (["--suite", "quality", "--only", "none"], "only must be one of mla, gla-2, "),
        (["--suite", "speed", "--variant", "mla"], "suite must be quality, got 'speed'"),
        (["--suite", "quality", "--variant", "none"], "config must be one of demo, demo-gla, "),
        (["--variant", "mla"], "--variant must be left out with no --suite, got ['mla']"),
        (["--only", "mla"], "--only must be left out with no --suite, got ['mla']"),
        (["--png", "losses.bmp"], "--png must be a file in .pdf, .png, .svg, got losses.bmp"),
        (["--device", "abacus"], "device must be cpu"),
        (["--steps", "0"], "steps must be positive or left out, got 0"),
    ],
)
def test_bad_settings_are_one_line_and_make_nothing(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(sys, "argv", ["bough", "train", str(tmp_path / "new"), *arguments])
    with pytest.raises(SystemExit) as exit_info:
        main()
    assert exit_info.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(f"bough: {message}") and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
