"""Prompts files: what a line may be, and how bad ones are named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bough.cli.prompts import BadLine, PromptLine, read_prompts, seed_of_line
from bough.engine.params import SamplingParams

DEFAULTS = SamplingParams(n=4, max_tokens=8, temperature=0.5, seed=7)


def read(path: Path, content: bytes) -> tuple[list[PromptLine], list[BadLine]]:
    file = path / "prompts.jsonl"
    file.write_bytes(content)
    return read_prompts(file, DEFAULTS)


def read_one(path: Path, **fields: object) -> PromptLine:
    [line], bad = read(path, json.dumps(fields).encode())
    assert not bad
    return line


def reason(path: Path, content: bytes) -> str:
    prompts, [bad] = read(path, content)
    assert not prompts
    return bad.reason


def test_a_line_is_sampled_by_the_defaults_and_its_own_fields(tmp_path: Path) -> None:
    line = read_one(tmp_path, prompt="def", n=2, top_p=0.9, stop=["\n"])
    assert (line.index, line.kind, line.prompt) == (0, "prompt", "def")
    params = line.params
    assert (params.n, params.max_tokens, params.temperature, params.top_p) == (2, 8, 0.5, 0.9)
    assert params.stop_strings == ("\n",)


def test_a_prompt_may_be_token_ids_or_messages(tmp_path: Path) -> None:
    assert read_one(tmp_path, prompt_token_ids=[3, 1]).prompt == [3, 1]
    messages = [{"role": "user", "content": "hello"}]
    line = read_one(tmp_path, messages=messages)
    assert (line.kind, line.prompt) == ("messages", messages)


def test_blank_lines_are_passed_over_but_counted(tmp_path: Path) -> None:
    prompts, bad = read(tmp_path, b'{"prompt": "a"}\r\n\n  \n{"prompt": "b"}\n[]\n')
    assert [line.index for line in prompts] == [0, 3]
    assert [str(line) for line in bad] == ["line 5: line must be a JSON object, got list"]


def test_a_byte_order_mark_and_a_missing_last_line_break_do_no_harm(tmp_path: Path) -> None:
    prompts, bad = read(tmp_path, b'\xef\xbb\xbf{"prompt": "a"}')
    assert [line.prompt for line in prompts] == ["a"] and not bad


def test_an_empty_file_has_no_prompts(tmp_path: Path) -> None:
    assert read(tmp_path, b"") == ([], [])


def test_equal_prompts_get_seeds_of_their_own_by_their_line(tmp_path: Path) -> None:
    prompts, _ = read(tmp_path, b'{"prompt": "a"}\n{"prompt": "a"}\n')
    seeds = [line.params.seed for line in prompts]
    assert seeds == [seed_of_line(7, 0), seed_of_line(7, 1)]
    assert len({*seeds, seed_of_line(8, 0)}) == 3


def test_a_seed_on_the_line_is_taken_as_it_is(tmp_path: Path) -> None:
    assert read_one(tmp_path, prompt="a", seed=3).params.seed == 3
    assert read_one(tmp_path, prompt="a", seed=None).params.seed == seed_of_line(7, 0)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b'{"prompt": "a"', "line must be JSON, got Expecting ',' delimiter at column 15"),
        (b'{"prompt": "\xff"}', "line must be JSON in UTF-8"),
        (b"[" * 100_000, "line must be JSON in UTF-8, got maximum recursion depth"),
        (b'{"prompt": "a", "seed": 1' + b"0" * 400 + b"}", "got a whole number of 401 digits"),
        (b'"text"', "line must be a JSON object, got str"),
        (b"{}", "line must be a JSON object with one of prompt, prompt_token_ids, messages"),
        (b'{"prompt": "a", "prompt_token_ids": [1]}', "got ['prompt', 'prompt_token_ids']"),
        (b'{"prompt": "a", "temprature": 1}', "got 'temprature'"),
        (b'{"prompt": ""}', "prompt must be text that is not empty, got ''"),
        (b'{"prompt": null}', "prompt must be text that is not empty, got None"),
        (b'{"prompt": "\\ud800"}', "prompt must be text that is not empty"),
        (b'{"prompt_token_ids": []}', "prompt_token_ids must be a list of token ids"),
        (b'{"prompt_token_ids": [1.0]}', "prompt_token_ids must be a list of token ids"),
        (b'{"prompt_token_ids": [true]}', "prompt_token_ids must be a list of token ids"),
        (b'{"messages": []}', "messages must be a list of objects with role and content"),
        (b'{"messages": [{"role": "user"}]}', "messages must be a list of objects"),
        (b'{"prompt": "a", "n": 0}', "n must be a whole number of at least 1, got 0"),
        (b'{"prompt": "a", "n": 2.0}', "n must be a whole number of at least 1, got 2.0"),
        (b'{"prompt": "a", "n": 1000000}', "n must be at most 16384, got 1000000"),
        (b'{"prompt": "a", "max_tokens": 0}', "max_tokens must be"),
        (b'{"prompt": "a", "temperature": NaN}', "temperature must be at least 0, got nan"),
        (b'{"prompt": "a", "stop": [""]}', "stop must be"),
    ],
)
def test_a_bad_line_says_what_was_expected_and_found(
    tmp_path: Path, content: bytes, found: str
) -> None:
    assert found in reason(tmp_path, content)


def test_a_long_reason_is_cut_and_stays_on_one_line() -> None:
    text = str(BadLine(index=4, reason="prompt must be\n" + "long " * 1000))
    assert text.startswith("line 5: prompt must be long") and text.endswith("...")
    assert len(text) < 250 and "\n" not in text
