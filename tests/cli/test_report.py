"""What is printed at the end of a generation."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from bough.cli.report import (
    Generation,
    ShownSample,
    format_bytes,
    parse_bytes,
    print_sample,
    report_lines,
)
from bough.engine.stats import EngineStats

STATS = EngineStats(
    num_steps=10,
    num_generated_tokens=3000,
    seconds=2.0,
    peak_num_nodes=61,
    peak_unique_tokens=4312,
    kv_bytes_read=1_200_000_000,
    kv_bytes_apart=9_840_000_000,
)


def done(stats: EngineStats = STATS, num_resumed: int = 0) -> Generation:
    return Generation(
        stats=stats, num_prompts=12, num_samples=48, num_resumed=num_resumed, num_bad=0, shown=[]
    )


def printed(shown: ShownSample) -> str:
    file = io.StringIO()
    print_sample(Console(file=file, width=40), shown)
    return file.getvalue()


def test_the_report_is_a_line_a_subject() -> None:
    assert report_lines(done()) == [
        "sampled    48 samples of 12 prompts: 3,000 tokens in 2.0 s, 1,500 tokens/s",
        "forest     at most 61 nodes, 4,312 KV tokens",
        "KV read    1.20 GB; request by request 9.84 GB, 8.2x as much",
    ]


def test_resumed_prompts_and_preemptions_are_told_where_there_are_any() -> None:
    lines = report_lines(done(EngineStats(num_preemptions=3), num_resumed=5))
    assert lines[-2:] == [
        "kept       5 prompts from before",
        "preempted  3 times, for want of KV pages",
    ]


def test_a_run_without_work_is_reported() -> None:
    assert "0 tokens in 0.0 s, 0 tokens/s" in report_lines(done(EngineStats()))[0]


def test_the_lines_that_a_sample_wrote_have_a_bar() -> None:
    prompt = "".join(f"line {number}\n" for number in range(20)) + "def f("
    text = printed(ShownSample(title="first", prompt=prompt, completion="x):\n    return x"))
    lines = [line.rstrip() for line in text.splitlines()]
    assert lines[0].startswith("first ──")
    assert lines[1:3] == ["  ...", "  line 16"]
    assert lines[-4:] == ["  line 19", "▌ def f(x):", "▌     return x", ""]


def test_what_would_steer_the_terminal_is_replaced() -> None:
    text = printed(ShownSample(title="first", prompt="[red]", completion="\x1b[2J\r[/]"))
    assert "\x1b" not in text and "\r" not in text
    assert "[red]\ufffd[2J\ufffd[/]" in text


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1234, "1.23 kB"),
        (99_960_000, "100 MB"),
        (999_600, "1.00 MB"),
        (5 * 10**18, "5000 PB"),
    ],
)
def test_bytes_are_written_with_three_digits(num_bytes: int, text: str) -> None:
    assert format_bytes(num_bytes) == text


@pytest.mark.parametrize(
    ("text", "num_bytes"),
    [("4GB", 4 * 10**9), ("512MiB", 2**29), (" 1.5 kb ", 1500), ("77", 77), ("3B", 3)],
)
def test_sizes_are_read_with_decimal_and_binary_units(text: str, num_bytes: int) -> None:
    assert parse_bytes(text) == num_bytes


@pytest.mark.parametrize("text", ["", "GB", "4 bananas", "4G", "nan", "inf", "1e999", "4GBB"])
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="size must be like 4GB"):
        parse_bytes(text)


def test_drafts_are_told_where_there_are_any() -> None:
    lines = report_lines(done(EngineStats(num_steps=40, num_draft_tokens=300, num_drawn_drafts=90)))
    assert lines[-1] == "drafts     300 tokens guessed, 90 of them right; 40 steps in all"
