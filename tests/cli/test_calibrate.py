from __future__ import annotations

import pytest
from typer.testing import CliRunner

from bough.cli.app import app


def test_without_a_gpu_there_is_nothing_to_measure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    result = CliRunner().invoke(app, ["calibrate"])
    assert result.exit_code != 0
    assert "device must be cpu where there is no GPU" in str(result.exception or result.output)
