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


def figures_of(results: dict, names: list[str], unit: float) -> list[list[float]]:
    """Figures of each row as the README rounds them, a missing one left out."""
    rows = []
    for row in results["rows"]:
        us = {score["name"]: score["us"] for score in row["scores"]}
        rows.append([round(us[name] / unit, 1) for name in names if us.get(name) is not None])
    return rows


def figures_shown(unit: str) -> list[list[float]]:
    rows = re.findall(rf"^\| `.+ {unit} \|.*$", README, re.MULTILINE)
    return [[float(figure) for figure in re.findall(rf"([\d.]+) {unit}", row)] for row in rows]


def test_its_figures_are_those_of_the_newest_results() -> None:
    folder = ROOT / "benchmarks/results"
    cpu = json.loads((folder / "kernel-cpu.json").read_text())
    gpu = json.loads((folder / "kernel-h100-trees.json").read_text())
    assert figures_shown("ms") == figures_of(cpu, ["bough", "sdpa"], 1e3)
    peers = ["bough", "fa3", "flashinfer", "cascade"]
    roofline = [round(row["roofline_us"], 1) for row in gpu["rows"]]
    expected = zip(figures_of(gpu, peers, 1.0), roofline, strict=True)
    assert figures_shown("us") == [[*figures, limit] for figures, limit in expected]
    for results in (cpu, gpu):
        assert results["date"][:10] in README
        assert results["device"] in README


def test_its_figures_of_latents_are_those_of_the_results() -> None:
    results = json.loads((ROOT / "benchmarks/results/kernel-h100-latent.json").read_text())
    measured = {(row["spec"], row["query_len"]): row for row in results["rows"][::-1]}
    specs = {"GLA-2": "gla:128:2", "MLA": "mla:128"}
    shown = re.findall(r"^\| (GLA-2|MLA), queries (\d) (\|.*)$", README, re.MULTILINE)
    assert len(shown) == 6
    for name, count, figures in shown:
        row = measured[specs[name], int(count)]
        assert row["case"].startswith("128|8192") and row["pages"] == "in order"
        (expected,) = figures_of({"rows": [row]}, ["bough", "fa3-latent", "flashmla"], 1.0)
        roofline = round(row["roofline_us"], 1)
        found = [float(figure) for figure in re.findall(r"([\d.]+) us", figures)]
        assert found == [*expected, roofline]


def test_every_folder_it_names_exists() -> None:
    table = README.split("## What lies where")[1]
    for name in re.findall(r"`([\w./-]+/)`", table):
        assert (ROOT / name).is_dir(), name
