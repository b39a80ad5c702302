"""What compute-sanitizer finds of the kernels on small forests, on a Hopper GPU."""

from __future__ import annotations

import inspect
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.kernels.sanitized import FAMILIES

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(shutil.which("compute-sanitizer") is None, reason="needs compute-sanitizer"),
]
# "Race reported between Write access at attend_grouped+0x310 in scout.py:80", and below it a line
# "and Read access at ..." for every line whose accesses race with that.
ACCESS = re.compile(r"(between|and) (Read|Write) access at [^ ]+ in ([^ :]+):(\d+)")


GLUON = Path(__file__).parents[2] / "bough" / "kernels" / "gluon"


class Access(NamedTuple):
    """An access to shared memory in a line of a kernel."""

    is_write: bool
    file: str
    line: int


def sanitize(tool: str, *script: str) -> str:
    """Run a test script under a tool; every allocation is one of its own, with room around it."""
    done = subprocess.run(
        ["compute-sanitizer", "--tool", tool, sys.executable, "-m", *script],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def races(report: str) -> list[tuple[Access, Access]]:
    """Pairs of accesses that racecheck reports."""
    pairs = []
    for word, kind, file, line in ACCESS.findall(report):
        access = Access(kind == "Write", file, int(line))
        if word == "between":
            first = access
        else:
            pairs.append((first, access))
    return pairs


def is_hand_over(pair: tuple[Access, Access], entry: Any) -> bool:
    """Whether what is written is handed over by one thread's arrival, or by Triton itself.

    Registers that several threads store are ordered before the arrival of one by a barrier among
    them. The tool does not follow that: `smallest_ring` does nothing else, and is reported. So are
    the words by which Triton starts the warps of a program, in its kernel's own lines. Copies and
    products have no such excuse.
    """
    lines, first = inspect.getsourcelines(entry.fn)
    own = (Path(entry.fn.__code__.co_filename).name, range(first, first + len(lines)))
    return any(
        access.is_write
        and ((access.file == own[0] and access.line in own[1]) or ".store(" in source_line(access))
        for access in pair
    )


def source_line(access: Access) -> str:
    """The line of a kernel, of every file of its name."""
    files = GLUON.rglob(access.file)
    lines = (file.read_text().splitlines() for file in files)
    return "\n".join(of_file[access.line - 1] for of_file in lines if access.line <= len(of_file))


def entries() -> dict[str, Any]:
    """The kernels of several kinds of warps. Imported late: the interpreter cannot have them."""
    from bough.kernels.gluon.grouped.attend import attend_grouped
    from bough.kernels.gluon.latent.few import attend_few
    from bough.kernels.gluon.latent.narrow import attend_narrow
    from bough.kernels.gluon.latent.quantized import attend_quantized
    from bough.kernels.gluon.latent.wide import attend_wide
    from bough.kernels.gluon.quantized.attend import attend_quantized_heads

    return {
        "grouped": attend_grouped,
        "tied": attend_grouped,
        "narrow": attend_narrow,
        "wide": attend_wide,
        "grouped-fp8": attend_quantized_heads,
        "tied-fp8": attend_quantized_heads,
        "latent-fp8": attend_quantized,
        "latent-few-fp8": attend_few,
        "wide-few-fp8": attend_few,
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_no_family_of_kernels_leaves_its_memory(family: str) -> None:
    report = sanitize("memcheck", "tests.kernels.sanitized", family)
    assert "the same bits twice" in report
    assert "ERROR SUMMARY: 0 errors" in report


@pytest.mark.parametrize("family", FAMILIES)
def test_no_family_of_kernels_races_but_in_what_one_thread_hands_over(family: str) -> None:
    report = sanitize("racecheck", "tests.kernels.sanitized", family)
    assert "RACECHECK SUMMARY" in report
    found = races(report)
    entry = entries().get(family)
    if entry is None:
        assert found == [] and "0 hazards displayed" in report
    else:
        assert {pair for pair in found if not is_hand_over(pair, entry)} == set()


@pytest.mark.parametrize("num_warps", [1, 4])
def test_the_smallest_ring_is_reported_too_though_nothing_races(num_warps: int) -> None:
    report = sanitize("racecheck", "tests.kernels.smallest_ring", str(num_warps))
    assert "the sum is right" in report
    written = {access.line for pair in races(report) for access in pair if access.is_write}
    source = Path(__file__).with_name("smallest_ring.py").read_text().splitlines()
    assert any("slots.index(turn % 2).store(" in source[line - 1] for line in written)
