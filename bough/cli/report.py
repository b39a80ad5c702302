"""What people see of a generation: a few samples to read, and what the run cost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.rule import Rule
from rich.text import Text

from bough.engine.stats import EngineStats

SHOWN_PROMPT_LINES = 4
UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


class Meter:
    """A bar of the tokens that are generated, on stderr; nothing where that is no terminal.

    Args:
        num_samples: samples to complete.
        num_tokens: most tokens that they may get together.
    """

    def __init__(self, num_samples: int, num_tokens: int) -> None:
        console = Console(stderr=True)
        self._num_samples = num_samples
        self._num_finished = 0
        self._num_unused = 0
        self._bar = Progress(
            BarColumn(),
            TextColumn("{task.percentage:3.0f}%  {task.fields[counts]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=num_tokens, counts="")

    def __enter__(self) -> Meter:
        self._bar.start()
        return self

    def finish(self, num_samples: int, num_unused: int) -> None:
        """Count samples that ended, and the tokens that they left unused."""
        self._num_finished += num_samples
        self._num_unused += num_unused

    def update(self, stats: EngineStats) -> None:
        """Draw what the engine has done so far."""
        self._bar.update(
            self._task,
            completed=stats.num_generated_tokens + self._num_unused,
            counts=f"{self._num_finished:,} of {count_of(self._num_samples, 'sample')}, "
            f"{stats.tokens_per_second:,.0f} tokens/s",
        )

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


@dataclass(frozen=True, kw_only=True)
class ShownSample:
    """One sample to read.

    Args:
        title: which one it is, and how it ended.
        prompt: the prompt's text.
        completion: the sample's text.
    """

    title: str
    prompt: str
    completion: str


@dataclass(frozen=True, kw_only=True)
class Generation:
    """What a run did.

    Args:
        stats: the engine's sums.
        num_prompts: prompts completed in this run.
        num_samples: their samples.
        num_resumed: prompts that an earlier run had completed.
        num_bad: lines that could not be run.
        shown: samples to read, in order of their lines.
    """

    stats: EngineStats
    num_prompts: int
    num_samples: int
    num_resumed: int
    num_bad: int
    shown: list[ShownSample]


def print_sample(console: Console, shown: ShownSample) -> None:
    """Print the end of a prompt and the sample behind it, whose lines have a bar before them."""
    console.print(Rule(Text(shown.title), align="left", style="dim"))
    for line in _marked_lines(shown):
        console.print(line, soft_wrap=True)
    console.print()


def report_lines(done: Generation) -> list[str]:
    """Say what a run cost, a line a subject."""
    stats = done.stats
    lines = [
        f"sampled    {count_of(done.num_samples, 'sample')} of "
        f"{count_of(done.num_prompts, 'prompt')}: "
        f"{count_of(stats.num_generated_tokens, 'token')} in {stats.seconds:.1f} s, "
        f"{stats.tokens_per_second:,.0f} tokens/s",
        f"forest     at most {count_of(stats.peak_num_nodes, 'node')}, "
        f"{count_of(stats.peak_unique_tokens, 'KV token')}",
        f"KV read    {format_bytes(stats.kv_bytes_read)}; request by request "
        f"{format_bytes(stats.kv_bytes_apart)}, {stats.sharing_factor:.1f}x as much",
    ]
    if stats.num_ranks > 1:
        lines.append(
            f"ranks      {stats.num_ranks}; each holds {count_of(stats.kv_token_bytes, 'byte')} "
            "of a token's KV"
        )
    if stats.num_draft_tokens:
        lines.append(
            f"drafts     {count_of(stats.num_draft_tokens, 'token')} guessed, "
            f"{stats.num_drawn_drafts:,} of them right; {count_of(stats.num_steps, 'step')} in all"
        )
    if done.num_resumed:
        lines.append(f"kept       {count_of(done.num_resumed, 'prompt')} from before")
    if stats.num_preemptions:
        times = count_of(stats.num_preemptions, "time")
        lines.append(f"preempted  {times}, for want of KV pages")
    return lines


def count_of(number: int, noun: str) -> str:
    """Write a number of things, such as `1 line` or `1,200 lines`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def format_bytes(num_bytes: int) -> str:
    """Write a number of bytes in decimal units, with three digits or so."""
    value = float(num_bytes)
    for unit in UNITS:
        if value < 999.5 or unit == UNITS[-1]:
            break
        value /= 1000
    digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
    digits = 0 if unit == "B" else digits
    return f"{value:.{digits}f} {unit}"


def parse_bytes(text: str) -> int:
    """Read a size such as `4GB`, `512MiB` or `1000000`.

    Raises:
        ValueError: it is not a whole number, or a number and a unit.
    """
    factors = {unit.lower(): 1000**power for power, unit in enumerate(UNITS)}
    factors |= {f"{unit[0]}ib".lower(): 1024**power for power, unit in enumerate(UNITS) if power}
    number = text.strip().lower().rstrip("bkmgtpi")
    unit = text.strip().lower()[len(number) :].strip() or "b"
    try:
        return int(float(number) * factors[unit])
    except (ValueError, KeyError, OverflowError) as error:
        raise ValueError(f"size must be like 4GB, 512MiB or 1000000, got {text!r}") from error


def _marked_lines(shown: ShownSample) -> Iterator[Text]:
    *before, last = _printable(shown.prompt).split("\n")
    if len(before) > SHOWN_PROMPT_LINES:
        before = ["...", *before[-SHOWN_PROMPT_LINES:]]
    for line in before:
        yield Text(f"  {line}", style="dim")
    for number, line in enumerate(_printable(shown.completion.rstrip()).split("\n")):
        begin = last if number == 0 else ""
        yield Text.assemble(("▌ ", "green"), (begin, "dim"), (line, "bold"))


def _printable(text: str) -> str:
    """Replace what would steer the terminal."""
    return "".join(char if char.isprintable() or char in "\n\t" else "\ufffd" for char in text)
