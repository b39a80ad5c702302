"""Output files: never half-written, in order, and resumable at whole prompts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bough.cli.outputs import (
    OrderedFile,
    ResumedFile,
    check_output_path,
    new_file,
    output_lines,
)
from bough.engine.outputs import RequestOutput, SampleOutput


def lines_of(index: int, num_samples: int = 2) -> bytes:
    records = [{"index": index, "sample": sample} for sample in range(num_samples)]
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def test_a_sample_is_a_line() -> None:
    samples = [
        SampleOutput(
            index=index, token_ids=[5, 6], text=text, logprobs=logprobs, finish_reason="stop"
        )
        for index, text, logprobs in [(0, "é\n", None), (1, None, [{5: -0.5, 9: -2.0}, {6: 0.0}])]
    ]
    output = RequestOutput(
        request_id=9,
        prompt=None,
        prompt_token_ids=[1],
        outputs=samples,
        num_cached_tokens=0,
        is_finished=True,
    )
    first, second = (json.loads(line) for line in output_lines(3, output).decode().splitlines())
    assert first == {
        "index": 3,
        "sample": 0,
        "text": "é\n",
        "token_ids": [5, 6],
        "finish_reason": "stop",
    }
    assert second["text"] is None
    assert second["logprobs"] == [{"5": -0.5, "9": -2.0}, {"6": 0.0}]


def test_lines_are_in_order_though_prompts_finish_in_another(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with OrderedFile(path).open([0, 2, 5]) as write:
        for index in (5, 0, 2):
            write(index, lines_of(index))
        assert not path.exists()
    assert path.read_bytes() == lines_of(0) + lines_of(2) + lines_of(5)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_run_leaves_the_old_file_and_no_other(
    tmp_path: Path, error: type[BaseException]
) -> None:
    path = tmp_path / "out.jsonl"
    path.write_bytes(b"old")
    with pytest.raises(error), OrderedFile(path).open([0, 1]) as write:
        write(0, lines_of(0))
        raise error
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_new_file_has_the_usual_permissions(tmp_path: Path) -> None:
    usual = tmp_path / "usual"
    usual.touch()
    with new_file(tmp_path / "new") as file:
        file.write(b"text")
    assert (tmp_path / "new").stat().st_mode == usual.stat().st_mode


def test_an_interrupted_run_goes_on_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    num_samples = {0: 2, 1: 2, 4: 2}
    with pytest.raises(KeyboardInterrupt), ResumedFile(path, num_samples).open([]) as write:
        write(4, lines_of(4))
        write(0, lines_of(0))
        raise KeyboardInterrupt
    assert path.read_bytes() == lines_of(4) + lines_of(0)
    file = ResumedFile(path, num_samples)
    assert file.finished == {0, 4}
    with file.open([1]) as write:
        write(1, lines_of(1))
    assert path.read_bytes() == lines_of(0) + lines_of(1) + lines_of(4)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("num_torn", [1, 10, len(lines_of(1)) // 2, len(lines_of(1)) - 3])
def test_a_torn_end_is_cut_back_to_whole_prompts(tmp_path: Path, num_torn: int) -> None:
    path = tmp_path / "out.jsonl"
    path.write_bytes((lines_of(0) + lines_of(1))[:-num_torn])
    file = ResumedFile(path, {0: 2, 1: 2})
    assert file.finished == {0}
    with file.open([1]) as write:
        assert path.read_bytes() == lines_of(0)
        write(1, lines_of(1))
    assert path.read_bytes() == lines_of(0) + lines_of(1)


def test_nothing_is_touched_before_the_file_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    torn = lines_of(0)[:-4]
    path.write_bytes(torn)
    ResumedFile(path, {0: 2})
    assert path.read_bytes() == torn


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"text", "last line must be a line that generate wrote"),
        (b"text\n" + lines_of(0), "line 1 must be a line that generate wrote"),
        (lines_of(0) + b"[]\n", "line 3 must be a line that generate wrote"),
        (lines_of(0) + b'{"index": 0}\n', "line 3 must be a line that generate wrote"),
        (lines_of(0) + lines_of(7), "line 3 index must be that of a line with a prompt, got 7"),
        (lines_of(0, 3), "line 3 sample must be below its prompt's n 2, got 2"),
    ],
)
def test_a_file_of_something_else_is_not_resumed(
    tmp_path: Path, content: bytes, found: str
) -> None:
    path = tmp_path / "out.jsonl"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="must be") as error:
        ResumedFile(path, {0: 2, 1: 2})
    assert found in str(error.value)
    assert path.read_bytes() == content


def test_the_output_must_be_a_file_that_can_be_made(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.touch()
    for path in (tmp_path / "none" / "out.jsonl", tmp_path, Path("/dev/null"), prompts):
        with pytest.raises(ValueError, match="output must be"):
            check_output_path(path, prompts)
    assert check_output_path(tmp_path / "out.jsonl", prompts) == tmp_path / "out.jsonl"


def test_a_link_is_followed(tmp_path: Path) -> None:
    target, link = tmp_path / "target.jsonl", tmp_path / "link.jsonl"
    link.symlink_to(target)
    assert check_output_path(link, tmp_path / "prompts.jsonl") == target
