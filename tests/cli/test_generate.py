"""`bough generate` as people run it: files in, files out, exit codes."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest
import torch

from bough.cli.app import main
from tests.checkpoints import (
    FAMILIES,
    VOCAB_SIZE,
    make_checkpoint,
    reference_greedy,
    reference_model,
)
from tests.cli.runs import TEXTS, arguments, generated, run, write_prompts, written

WITHOUT_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


@pytest.fixture(scope="module", params=FAMILIES)
def family_model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(request.param, tmp_path_factory.mktemp(request.param))


def refusal(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr of a command that is refused."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["bough", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
    assert stop.value.code == 2
    streams = capsys.readouterr()
    assert streams.out == ""
    assert streams.err.startswith("bough: ") and streams.err.count("\n") == 1
    return streams.err


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(["--page-size", 1], id="page-size-1"),
        pytest.param(["--page-size", 16, "--num-pages", 7], id="preempted"),
        pytest.param(["--page-size", 64, "--max-num-batched-tokens", 20], id="chunked"),
    ],
)
def test_greedy_tokens_are_those_of_transformers(
    family_model: Path, tmp_path: Path, options: list[object]
) -> None:
    draw = random.Random(5)
    header = [draw.randrange(2, VOCAB_SIZE) for _ in range(37)]
    tails = [[], [5], [5, 9, 8], [7] * 20]
    expected = reference_model(family_model)
    prompts = write_prompts(tmp_path, [{"prompt_token_ids": header + tail} for tail in tails])
    lines = generated(family_model, prompts, "--temperature", 0, "--max-tokens", 24, *options)
    assert [line["index"] for line in lines] == [0, 1, 2, 3]
    for line, tail in zip(lines, tails, strict=True):
        assert line["token_ids"] == reference_greedy(expected, header + tail, 24)
        assert line["text"] is None


def test_lines_are_in_order_of_prompt_and_sample(model: Path, tmp_path: Path) -> None:
    short = {"prompt_token_ids": [9], "max_tokens": 2, "n": 1}
    prompts = write_prompts(tmp_path, [TEXTS[0], "", short, TEXTS[1]])
    lines = generated(model, prompts, "--n", 3, "--max-tokens", 12, "--ignore-eos")
    places = [(line["index"], line["sample"]) for line in lines]
    assert places == [(0, 0), (0, 1), (0, 2), (2, 0), (3, 0), (3, 1), (3, 2)]
    assert list(lines[0]) == ["index", "sample", "text", "token_ids", "finish_reason"]
    assert [len(line["token_ids"]) for line in lines] == [12, 12, 12, 2, 12, 12, 12]
    assert all(isinstance(line["text"], str) for line in lines)
    assert {line["finish_reason"] for line in lines} == {"length"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "prompts.jsonl"]


def test_the_same_seed_gives_the_same_file_in_any_batch(model: Path, tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path, [TEXTS[0], TEXTS[1], TEXTS[0]])
    options = ["--n", 3, "--max-tokens", 12, "--seed", 4]
    together = generated(model, prompts, *options)
    assert together == generated(model, prompts, *options, "--max-num-seqs", 2, "--page-size", 3)
    assert together != generated(model, prompts, *options[:-1], 5)
    tokens = [line["token_ids"] for line in together]
    assert tokens[:3] != tokens[6:], "equal prompts on two lines are two questions"


def test_equal_lines_with_a_seed_of_their_own_get_equal_samples(
    model: Path, tmp_path: Path
) -> None:
    prompts = write_prompts(tmp_path, [{**TEXTS[0], "seed": 3}] * 2)
    first, second = generated(model, prompts, "--max-tokens", 12)
    assert first["token_ids"] == second["token_ids"]


def test_sampling_options_reach_the_engine(model: Path, tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path, [TEXTS[0]])
    options = ["--max-tokens", 30, "--temperature", 0, "--ignore-eos"]
    [plain] = generated(model, prompts, *options)
    mark = plain["text"][10]
    [stopped] = generated(model, prompts, *options, "--stop", mark, "--stop", "never")
    assert stopped["finish_reason"] == "stop"
    assert stopped["text"] == plain["text"][: plain["text"].index(mark)]
    [penalized] = generated(model, prompts, *options, "--repetition-penalty", 50)
    assert len(set(penalized["token_ids"])) == 30
    [quantized] = generated(model, prompts, *options, "--kv-dtype", "fp8")
    assert len(quantized["token_ids"]) == 30
    [one_left] = generated(model, prompts, *options[:2], "--ignore-eos", "--top-k", 1)
    assert one_left["token_ids"] == plain["token_ids"]
    [reported] = generated(model, prompts, *options, "--logprobs", 2)
    for token_id, report in zip(plain["token_ids"], reported["logprobs"], strict=True):
        assert len(report) == 2 and max(report, key=report.get) == str(token_id)


def test_messages_are_put_into_the_models_chat_format(model: Path, tmp_path: Path) -> None:
    chat = {"messages": [{"role": "user", "content": "leaf"}], "seed": 1}
    same = {"prompt": "<s><user>leaf</user><assistant>", "seed": 1}
    prompts = write_prompts(tmp_path, [chat, same])
    first, second = generated(model, prompts, "--max-tokens", 8)
    assert first["token_ids"] == second["token_ids"]


def test_bad_lines_are_named_and_the_others_run(model: Path, tmp_path: Path) -> None:
    lines = [
        TEXTS[0],
        '{"prompt": ',
        {"prompt": "leaf", "n": 0},
        {"prompt": "leaf " * 600},
        {"prompt_token_ids": [1, VOCAB_SIZE]},
        {"prompt": "leaf", "colour": "green"},
        TEXTS[1],
    ]
    prompts = write_prompts(tmp_path, lines)
    result = run(model, prompts, "--max-tokens", 3, "--ignore-eos")
    assert result.exit_code == 2
    assert [line["index"] for line in written(prompts)] == [0, 6]
    errors = [line for line in result.stderr.splitlines() if line.startswith("bough: ")]
    assert len(errors) == len(result.stderr.splitlines()) == 6
    for number, (error, found) in enumerate(
        zip(
            errors,
            [
                "line must be JSON",
                "n must be a whole number of at least 1, got 0",
                "prompt must be at most 511 tokens",
                f"prompt_token_ids[1] must be from 0 to {VOCAB_SIZE - 1}, got {VOCAB_SIZE}",
                "got 'colour'",
            ],
            strict=False,
        ),
        start=2,
    ):
        assert error.startswith(f"bough: {prompts} line {number}: ")
        assert found in error
    assert errors[5] == f"bough: 5 lines of {prompts} could not be run"
    assert "sampled    2 samples of 2 prompts: 6 tokens" in result.stdout


def test_text_for_a_model_without_a_tokenizer_is_a_bad_line(tmp_path: Path) -> None:
    folder = make_checkpoint("qwen2", tmp_path / "model")
    chat = {"messages": [{"role": "user", "content": "leaf"}]}
    prompts = write_prompts(tmp_path, [TEXTS[0], chat, {"prompt_token_ids": [4]}])
    result = run(folder, prompts, "--max-tokens", 2, "--show", 1)
    assert result.exit_code == 2
    assert [line["index"] for line in written(prompts)] == [2]
    assert f"{prompts} line 1: prompt must be token ids" in result.stderr
    assert f"{prompts} line 2: messages must be for a model with a tokenizer" in result.stderr
    assert "▌ [4]" in result.stdout


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--n", 0], "n must be"),
        (["--n", 10**6], "n must be at most 16384"),
        (["--max-tokens", 0], "max_tokens must be"),
        (["--seed", -1], "seed must be"),
        (["--page-size", 0], "page_size must be"),
        (["--page-size", 10**12], "page_size must be small enough"),
        (["--num-pages", 10**15], "num_pages must be at most"),
        (["--kv-memory", "much"], "size must be like 4GB"),
        (["--device", "abacus"], "device must be"),
        pytest.param(["--device", "cuda"], "device must be cpu where", marks=WITHOUT_GPU),
        pytest.param(["--device", "h100"], "device must be cpu where", marks=WITHOUT_GPU),
        (["--dtype", "int4"], "dtype must be"),
        (["--kv-dtype", "int4"], "kv_dtype must be fp8 or None, got 'int4'"),
        (["--model", "nowhere"], "model must be a folder, got 'nowhere'"),
        (["--prompts", "nowhere.jsonl"], "nowhere.jsonl: No such file"),
        (["--output", "nowhere/out.jsonl"], "output must be in a folder that exists"),
    ],
)
def test_a_run_that_cannot_begin_is_one_line_and_writes_nothing(
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[object],
    found: str,
) -> None:
    prompts = write_prompts(tmp_path, [TEXTS[0], "bad line"])
    assert found in refusal(arguments(model, prompts, *options), capsys)
    assert list(tmp_path.iterdir()) == [prompts]


def test_a_run_that_cannot_begin_leaves_an_earlier_output(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = write_prompts(tmp_path, [TEXTS[0]])
    output = tmp_path / "out.jsonl"
    output.write_text("earlier")
    refusal(arguments(tmp_path, prompts), capsys)
    refusal(arguments(model, prompts, "--resume"), capsys)
    assert output.read_text() == "earlier"


def test_samples_are_shown_when_asked(model: Path, tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path, TEXTS)
    result = run(model, prompts, "--max-tokens", 6, "--n", 2, "--show", 2, "--ignore-eos")
    assert result.exit_code == 0
    assert "index 0, sample 0: 6 tokens, ended by length" in result.stdout
    assert "  def branch(self, leaf):" in result.stdout
    assert "index 2" not in result.stdout


@pytest.mark.parametrize("num_torn", [5, 200])
def test_a_torn_output_is_resumed_to_what_it_would_have_been(
    model: Path, tmp_path: Path, num_torn: int
) -> None:
    prompts = write_prompts(tmp_path, TEXTS)
    output = tmp_path / "out.jsonl"
    options = ["--n", 2, "--max-tokens", 12, "--max-num-seqs", 2]
    generated(model, prompts, *options)
    whole = output.read_bytes()
    output.write_bytes(whole[:-num_torn])
    result = run(model, prompts, *options, "--resume")
    assert result.exit_code == 0
    assert "kept       2 prompts from before" in result.stdout
    assert output.read_bytes() == whole
    assert run(model, prompts, *options, "--resume").exit_code == 0
    assert output.read_bytes() == whole
