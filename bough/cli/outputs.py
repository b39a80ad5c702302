"""Result files that are never half-written: whole at the end, or grown by whole lines."""

from __future__ import annotations

import json
import os
import secrets
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Protocol

from bough.engine.outputs import RequestOutput
from bough.expect import expect

LINE_START = b'{"index": '
WriteLines = Callable[[int, bytes], None]  # a prompt's index, and the lines of all its samples


class OutputFile(Protocol):
    """Where the samples of one prompt after another go."""

    finished: frozenset[int]
    """Prompts whose samples are there already."""

    def open(self, indices: Sequence[int]) -> AbstractContextManager[WriteLines]:
        """Open it for the prompts `indices`, which ascend; what takes their lines is handed out."""
        ...


def output_lines(index: int, output: RequestOutput) -> bytes:
    """Write one prompt's samples as lines of JSON, a sample a line, in order.

    Args:
        index: the prompt's line of the prompts file, counted from 0.
        output: its finished request.
    """
    lines = []
    for sample in output.outputs:
        record: dict[str, object] = {
            "index": index,
            "sample": sample.index,
            "text": sample.text,
            "token_ids": sample.token_ids,
            "finish_reason": sample.finish_reason,
        }
        if sample.logprobs is not None:
            record["logprobs"] = sample.logprobs
        lines.append(json.dumps(record, ensure_ascii=False) + "\n")
    return "".join(lines).encode("utf-8")


def check_output_path(path: Path, prompts: Path) -> Path:
    """See that a file can be made there before any work is done for it.

    Returns:
        The path with symbolic links followed, so that a link is not replaced by a file.

    Raises:
        ValueError: its folder is missing or closed, it is no regular file, or it is the prompts.
    """
    path = path.resolve()
    is_open = path.parent.is_dir() and os.access(path.parent, os.W_OK)
    expect(is_open, "output", "in a folder that exists and can be written", path)
    expect(path.is_file() or not path.exists(), "output", "a file", path)
    is_other = not (path.exists() and prompts.exists() and path.samefile(prompts))
    expect(is_other, "output", "another file than prompts", path)
    return path


@contextmanager
def new_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file beside `path`, which takes its name unless an error is raised.

    Raises:
        OSError: no file can be made or written there.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with draft.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


class OrderedFile:
    """Lines in order of the prompts, in a file that appears when all are there.

    Args:
        path: the file to make or replace.
    """

    finished: frozenset[int] = frozenset()

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextmanager
    def open(self, indices: Sequence[int]) -> Iterator[WriteLines]:
        """Take lines of prompts in any order; those ahead of their turn wait in memory."""
        order = deque(indices)
        early: dict[int, bytes] = {}
        with new_file(self._path) as file:

            def write(index: int, lines: bytes) -> None:
                early[index] = lines
                while order and order[0] in early:
                    file.write(early.pop(order.popleft()))

            yield write


class ResumedFile:
    """Lines as prompts are finished, put in order at the end.

    A torn last line and the lines of prompts whose samples are not all there are dropped.

    Args:
        path: the file to go on with, or to make.
        num_samples: samples of each prompt of the prompts file, by its index.

    Raises:
        ValueError: the file holds something else than samples of these prompts.
    """

    def __init__(self, path: Path, num_samples: Mapping[int, int]) -> None:
        self._path = path
        self._kept = _read_finished(path, num_samples) if path.exists() else {}
        self.finished = frozenset(self._kept)

    @contextmanager
    def open(self, indices: Sequence[int]) -> Iterator[WriteLines]:
        """Append each prompt's lines at once."""
        self._rewrite()
        with self._path.open("ab") as file:

            def write(index: int, lines: bytes) -> None:
                file.write(lines)
                file.flush()
                self._kept[index] = lines

            yield write
        self._rewrite()

    def _rewrite(self) -> None:
        with new_file(self._path) as file:
            file.writelines(lines for _, lines in sorted(self._kept.items()))


def _read_finished(path: Path, num_samples: Mapping[int, int]) -> dict[int, bytes]:
    """Find the prompts whose samples are all there; their lines in order of the samples."""
    *whole, torn = path.read_bytes().split(b"\n")
    is_ours = torn.startswith(LINE_START) or LINE_START.startswith(torn)
    expect(is_ours, f"{path} last line", "a line that generate wrote", f"{torn[:60]!r}")
    found: dict[int, dict[int, bytes]] = {}
    for number, raw in enumerate(whole, start=1):
        where = f"{path} line {number}"
        index, sample = _read_place(raw, where)
        expect(index in num_samples, f"{where} index", "that of a line with a prompt", index)
        count = num_samples[index]
        expect(0 <= sample < count, f"{where} sample", f"below its prompt's n {count}", sample)
        found.setdefault(index, {})[sample] = raw + b"\n"
    return {
        index: b"".join(lines[sample] for sample in sorted(lines))
        for index, lines in found.items()
        if len(lines) == num_samples[index]
    }


def _read_place(raw: bytes, where: str) -> tuple[int, int]:
    try:
        values = json.loads(raw)
    except ValueError as error:
        raise ValueError(f"{where} must be a line that generate wrote, got {error}") from error
    is_record = isinstance(values, dict)
    place = [values.get(name) if is_record else None for name in ("index", "sample")]
    is_place = all(type(value) is int for value in place)
    expect(is_place, where, "a line that generate wrote, with index and sample", f"{raw[:60]!r}")
    return place[0], place[1]  # type: ignore[return-value]
