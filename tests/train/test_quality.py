import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bough.train.quality import Suite, run_suite
from bough.train.summary import gaps, plot_losses, plot_quality, summarize

# Config file, kind of attention and number of seeds.
VARIANTS = (("gqa-4", "gqa", 1), ("gta-4", "gta", 2))


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Suite:
    folder = tmp_path_factory.mktemp("suite")
    for package, word in (("held", "alpha"), ("other", "beta"), ("third", "gamma")):
        (folder / "packages" / package).mkdir(parents=True)
        for index in range(8):
            lines = [
                f"def {word}_{index}_{line}(x):\n    return {line} + x\n" for line in range(40)
            ]
            (folder / "packages" / package / f"{index}.py").write_text("".join(lines))
    for name, attention, _ in VARIANTS:
        (folder / f"{name}.toml").write_text(
            f'base = "tiny"\nseq_len = 32\nbatch_size = 2\nwarmup_steps = 2\nnum_evaluations = 2\n'
            f'[shape]\nvocab_size = 300\nattention = "{attention}"\nnum_kv_heads = 2\n'
        )
    return Suite(
        output=folder / "out",
        variants={str(folder / f"{name}.toml"): seeds for name, _, seeds in VARIANTS},
        packages=folder / "packages",
        held_out="held",
        steps=4,
        device="cpu",
    )


@pytest.fixture(scope="module")
def results(suite: Suite) -> dict[str, Any]:
    return run_suite(suite)


def test_every_variant_is_trained_from_every_seed_on_the_same_tokens(
    suite: Suite, results: dict[str, Any]
) -> None:
    runs = [(run["variant"], run["seed"]) for run in results["runs"]]
    assert runs == [("gqa-4", 0), ("gta-4", 0), ("gta-4", 1)]
    assert json.loads((suite.output / "quality.json").read_text()) == results
    assert results["data"]["held_out"] == "held"
    for run in results["runs"]:
        assert run["tokens_seen"] == 4 * 2 * 32
        assert 4 < run["validation_loss"] < 7
    losses = [run["validation_loss"] for run in results["runs"]]
    assert len(set(losses)) == 3


def test_runs_that_are_there_are_gathered_and_not_made_again(
    suite: Suite, results: dict[str, Any]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in (suite.output / "runs").iterdir()}
    assert run_suite(suite)["runs"] == results["runs"]
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_the_summary_and_the_pictures_hold_every_variant(
    suite: Suite, results: dict[str, Any]
) -> None:
    summaries = summarize(results["runs"])
    assert list(summaries) == ["gqa-4", "gta-4"]
    assert summaries["gqa-4"].kv_bytes == 2 * 2 * 2 * 2 * 16
    assert summaries["gta-4"].kv_bytes == 2 * 2 * (2 * 16 + 8)
    assert list(gaps(summaries)) == ["gta-4 against gqa-4"]
    plot_quality(results["runs"], suite.output / "quality.png")
    plot_losses(results["runs"][0]["log"], suite.output / "losses.png")
    assert all((suite.output / f"{name}.png").stat().st_size > 0 for name in ("quality", "losses"))


@pytest.mark.usefixtures("results")
def test_a_result_of_other_settings_is_refused(suite: Suite) -> None:
    with pytest.raises(ValueError, match=r"steps of .*gqa-4-0.json must be 5, as now"):
        run_suite(replace(suite, steps=5))


def test_an_unknown_variant_is_refused(suite: Suite) -> None:
    with pytest.raises(ValueError, match="only must be one of"):
        run_suite(suite, only=["mla"])


def test_variants_that_do_not_fit_each_other_are_refused_before_any_work(
    suite: Suite, tmp_path: Path
) -> None:
    other = tmp_path / "gqa-4.toml"
    other.write_text('base = "tiny"\nseq_len = 64\n[shape]\nvocab_size = 300\n')
    empty = replace(suite, output=tmp_path / "out")
    with pytest.raises(ValueError, match="variants must be of different names, got gqa-4, gqa-4"):
        run_suite(replace(empty, variants={"gqa-4": 1, str(other): 1}))
    with pytest.raises(ValueError, match=r"steps of gqa-4 must be \(300, 32, 4\), as those of gta"):
        run_suite(replace(empty, variants={list(suite.variants)[1]: 1, str(other): 1}))
    with pytest.raises(ValueError, match="config must be one of"):
        run_suite(replace(empty, variants={"none": 1}))
    assert not empty.output.exists()


def test_a_perplexity_is_the_mean_of_its_runs() -> None:
    run = {"variant": "mla", "num_params": 1, "kv_bytes": 2, "tokens_per_second": 5}
    run["log"] = [{"train_loss": 9.0}, {"train_loss": 0.5}]
    runs = [run | {"validation_loss": loss} for loss in (1.0, 2.0)]
    summary = summarize(runs)["mla"]
    assert summary.perplexity == pytest.approx((math.e + math.e**2) / 2)
    assert summary.perplexity_spread == pytest.approx((math.e**2 - math.e) / math.sqrt(2))
    assert (summary.loss, summary.train_loss) == (1.5, 0.5)
    assert summarize(runs[:1])["mla"].perplexity_spread is None


def test_all_variants_read_the_same_windows_in_the_same_order(suite: Suite) -> None:
    configs = [suite.config(variant, seed) for variant, seed in suite.runs]
    keys = ("data_seed", "batch_size", "seq_len", "steps", "learning_rate", "weight_decay")
    assert len({tuple(config.settings[key] for key in keys) for config in configs}) == 1
