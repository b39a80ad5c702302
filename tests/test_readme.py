"""The README tells the truth: its examples run, and its figures are those of the results."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", README, re.DOTALL))
def test_its_examples_run(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    exec(code, {})


def test_its_figures_are_those_of_the_newest_results() -> None:
    results = json.loads((ROOT / "benchmarks/results/kernel-cpu.json").read_text())
    figures = re.findall(r"^\| `([^`]+)`(.*?) \| ([\d.]+) ms \| ([\d.]+) ms ", README, re.MULTILINE)
    shown = [(float(ours), float(peer)) for _, _, ours, peer in figures]
    measured = []
    for row in results["rows"]:
        us = {score["name"]: score["us"] for score in row["scores"]}
        measured.append((round(us["bough"] / 1e3, 1), round(us["sdpa"] / 1e3, 1)))
    assert shown == measured
    assert results["date"][:10] in README
    assert results["device"] in README


def test_every_folder_it_names_exists() -> None:
    table = README.split("## What lies where")[1]
    for name in re.findall(r"`([\w./-]+/)`", table):
        assert (ROOT / name).is_dir(), name
