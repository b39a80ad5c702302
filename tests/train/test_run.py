import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, LlamaForCausalLM

from bough.models.load import load_model
from bough.train import TrainConfig, TrainReport, train
from bough.train.report import model_card
from tests.train.runs import SHAPE, small_config


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    output = tmp_path_factory.mktemp("train") / "checkpoint"
    return small_config(output)


@pytest.fixture(scope="module")
def report(config: TrainConfig) -> TrainReport:
    return train(config)


def test_a_few_steps_lower_the_loss(report: TrainReport) -> None:
    log = (report.output / "training.jsonl").read_text().splitlines()
    losses = [json.loads(line)["train_loss"] for line in log]
    assert losses[-1] < losses[0] - 0.3
    assert report.num_steps == report.best_step == 40
    assert report.tokens_seen == 40 * 8 * 48


def test_the_report_and_the_card_tell_what_the_folder_holds(report: TrainReport) -> None:
    weights = load_file(report.output / "model.safetensors")
    assert report.num_params == sum(weight.numel() for weight in weights.values())
    assert {weight.dtype for weight in weights.values()} == {torch.bfloat16}
    names = {path.name for path in report.output.iterdir()}
    assert names == {
        "README.md",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "training.jsonl",
    }
    card = (report.output / "README.md").read_text()
    assert "a folder named `json`" in card
    assert f"{report.validation_loss:.4f}" in card


def test_the_card_of_a_model_of_the_standard_library_names_its_licence(
    config: TrainConfig, report: TrainReport
) -> None:
    card = model_card(replace(config, source=None, include_tests=False), report)
    assert "the standard library of Python 3." in card
    assert "without its tests, under the [PSF licence]" in card


def test_transformers_gives_the_same_logits(report: TrainReport) -> None:
    decoder = load_model(report.output, dtype=torch.float32)
    other = LlamaForCausalLM.from_pretrained(report.output, dtype=torch.float32)
    token_ids = torch.randint(SHAPE.vocab_size, (2, 64), generator=torch.manual_seed(0))
    with torch.no_grad():
        expected = decoder.logits(decoder.forward_sequences(token_ids))
        torch.testing.assert_close(other(token_ids).logits, expected, atol=2e-5, rtol=1e-4)
    assert expected.std() > 0.1


def test_transformers_reads_the_tokenizer(report: TrainReport) -> None:
    tokenizer = AutoTokenizer.from_pretrained(report.output)
    text = 'def f(x):\n    """A  b."""\n\n    return x . y , \'z\'\n'
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.eos_token_id == 0
    assert len(tokenizer) == SHAPE.vocab_size


def test_an_existing_folder_is_refused_and_left_alone(
    config: TrainConfig, report: TrainReport
) -> None:
    before = {path: path.stat().st_mtime_ns for path in report.output.iterdir()}
    with pytest.raises(FileExistsError, match="output must be a new folder"):
        train(config)
    assert {path: path.stat().st_mtime_ns for path in report.output.iterdir()} == before


def test_minutes_are_turned_into_steps_and_an_old_folder_is_replaced(
    config: TrainConfig, tmp_path: Path
) -> None:
    output = tmp_path / "checkpoint"
    output.mkdir()
    (output / "old.txt").write_text("old")
    timed = replace(config, output=output, steps=None, minutes=0.11, overwrite=True)
    report = train(timed)
    assert report.num_steps > timed.warmup_steps
    assert not (output / "old.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_a_missing_device_is_refused_before_any_work(config: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="device must be cpu"):
        train(replace(config, output=tmp_path / "new", device="tpu"))
    assert not (tmp_path / "new").exists()
