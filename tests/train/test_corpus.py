from pathlib import Path

import pytest

from bough.train.corpus import (
    collect_files,
    load_corpus,
    load_packages,
    split_texts,
    standard_library,
)


def write_files(root: Path, names: list[str]) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"# {name}\n" * 9, encoding="utf-8")


def test_files_come_in_the_order_of_their_paths_without_installed_packages(tmp_path: Path) -> None:
    write_files(tmp_path, ["b.py", "a/c.py", "site-packages/d.py", "a/test/e.py", "f.txt"])
    files = collect_files(tmp_path, include_tests=True)
    assert files == [Path("a/c.py"), Path("a/test/e.py"), Path("b.py")]
    assert collect_files(tmp_path, include_tests=False) == [Path("a/c.py"), Path("b.py")]


def test_the_split_depends_on_the_files_alone_and_shares_none() -> None:
    texts = {Path(f"{index}.py"): f"{index}\n" * 50 for index in range(200)}
    first, again = split_texts(texts), split_texts(dict(reversed(texts.items())))
    assert set(first.validation) == set(again.validation)
    assert first.train == [text for text in texts.values() if text not in first.validation]
    assert 0.03 <= len("".join(first.validation)) / len("".join(texts.values())) < 0.04


def test_the_split_of_two_files_gives_each_part_one() -> None:
    corpus = split_texts({Path("a.py"): "a" * 100, Path("b.py"): "b"})
    assert len(corpus.train) == len(corpus.validation) == 1


def test_empty_and_undecodable_files_are_left_out(tmp_path: Path) -> None:
    write_files(tmp_path, ["a.py", "b.py"])
    (tmp_path / "c.py").write_bytes(b"# \xff\n")
    (tmp_path / "d.py").write_text("")
    corpus = load_corpus(tmp_path)
    assert sorted(corpus.train + corpus.validation) == ["# a.py\n" * 9, "# b.py\n" * 9]


def test_too_few_files_are_refused(tmp_path: Path) -> None:
    write_files(tmp_path, ["a.py"])
    with pytest.raises(ValueError, match="source must be a folder of 2 or more Python files"):
        load_corpus(tmp_path)


def test_the_standard_library_is_found_and_a_limit_keeps_to_it() -> None:
    files = collect_files(standard_library(), include_tests=False, max_files=20)
    assert len(files) == 20
    assert files == sorted(files)
    assert set(files) <= set(collect_files(standard_library(), include_tests=False))


def test_a_package_is_held_out_with_all_copies_of_its_files(tmp_path: Path) -> None:
    write_files(tmp_path, ["a/b.py", "held/c.py", "held/d.rst", "a/e.md", "a/f.txt", "single.py"])
    (tmp_path / "a" / "copy.py").write_text((tmp_path / "held" / "c.py").read_text())
    (tmp_path / "a" / "table.py").write_text("x\n" * 200_000)
    corpus = load_packages(tmp_path, "held")
    assert corpus.validation == ["# held/c.py\n" * 9, "# held/d.rst\n" * 9]
    assert corpus.train == ["# a/b.py\n" * 9, "# a/e.md\n" * 9, "# single.py\n" * 9]


def test_a_missing_package_is_refused(tmp_path: Path) -> None:
    write_files(tmp_path, ["a/b.py"])
    with pytest.raises(ValueError, match="root must be a folder with the package held, got"):
        load_packages(tmp_path, "held")
    with pytest.raises(ValueError, match="root must be a folder with packages beside it, got"):
        load_packages(tmp_path, "a")
