"""Which source files a model learns from, and how they are split. No tokens live here."""

from __future__ import annotations

import hashlib
import sysconfig
import tokenize
from pathlib import Path
from typing import NamedTuple

# Installed packages are not the standard library; the other folders hold tables of characters,
# help topics as one string, C build settings and deliberately broken or outdated source.
EXCLUDED_FOLDERS = frozenset(
    {"__pycache__", "site-packages", "dist-packages", "encodings", "pydoc_data", "data"}
)
TEST_FOLDERS = frozenset({"test", "tests", "idle_test"})
VALIDATION_SHARE = 0.03


class Corpus(NamedTuple):
    """Texts of whole files, in the order of their paths; no file is in both parts."""

    train: list[str]
    validation: list[str]


def standard_library() -> Path:
    """Return the folder of this interpreter's standard library."""
    return Path(sysconfig.get_path("stdlib"))


def collect_files(root: Path, *, include_tests: bool, max_files: int | None = None) -> list[Path]:
    """List the Python files below `root` that a model may learn from.

    Args:
        root: the folder to search.
        include_tests: whether files in folders of tests are listed.
        max_files: at most this many, chosen by the hash of their paths; None for all.

    Returns:
        paths relative to `root`, sorted.
    """
    excluded = EXCLUDED_FOLDERS if include_tests else EXCLUDED_FOLDERS | TEST_FOLDERS
    paths = [path.relative_to(root) for path in root.rglob("*.py")]
    paths = [path for path in paths if excluded.isdisjoint(path.parent.parts)]
    return sorted(sorted(paths, key=_path_hash)[:max_files])


def split_texts(texts: dict[Path, str]) -> Corpus:
    """Split files into a training and a validation part.

    Files validate in the order of their paths' hashes until they hold `VALIDATION_SHARE` of all
    characters, so the same files always split the same. At least one file is in each part.

    Args:
        texts: two files or more, by path, in the order to keep.
    """
    wanted = VALIDATION_SHARE * sum(len(text) for text in texts.values())
    held_out: set[Path] = set()
    num_chars = 0
    for path in sorted(texts, key=_path_hash)[:-1]:
        if num_chars >= wanted:
            break
        held_out.add(path)
        num_chars += len(texts[path])
    return Corpus(
        train=[text for path, text in texts.items() if path not in held_out],
        validation=[text for path, text in texts.items() if path in held_out],
    )


def load_corpus(
    root: Path | None = None, *, include_tests: bool = True, max_files: int | None = None
) -> Corpus:
    """Read the corpus below `root`, the standard library where it is None.

    Files that are empty, or whose bytes are not text in the encoding that they declare, are
    left out: the standard library's tests keep some of each on purpose.

    Raises:
        ValueError: there are fewer than the two files that a split needs.
    """
    root = standard_library() if root is None else root
    files = collect_files(root, include_tests=include_tests, max_files=max_files)
    texts = {path: text for path in files if (text := _read_text(root / path))}
    if len(texts) < 2:
        raise ValueError(f"source must be a folder of 2 or more Python files, got {root}")
    return split_texts(texts)


def _read_text(path: Path) -> str | None:
    try:
        with tokenize.open(path) as file:
            return file.read()
    except (SyntaxError, UnicodeDecodeError):
        return None


def _path_hash(path: Path) -> bytes:
    return hashlib.sha256(path.as_posix().encode()).digest()
