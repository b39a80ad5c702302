"""Which source files a model learns from, and how they are split. No tokens live here."""

from __future__ import annotations

import hashlib
import sysconfig
import tokenize
from pathlib import Path
from typing import NamedTuple

from bough.expect import expect

# Installed packages are not the standard library; the other folders hold tables of characters,
# help topics as one string, C build settings and deliberately broken or outdated source.
EXCLUDED_FOLDERS = frozenset(
    {"__pycache__", "site-packages", "dist-packages", "encodings", "pydoc_data", "data"}
)
TEST_FOLDERS = frozenset({"test", "tests", "idle_test"})
VALIDATION_SHARE = 0.03
# Sources and documentation of installed packages. Larger files are tables and generated code.
PACKAGE_SUFFIXES = (".py", ".pyi", ".pyx", ".md", ".rst")
MAX_PACKAGE_FILE_BYTES = 200_000


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


def installed_packages() -> Path:
    """Return the folder that this interpreter's packages are installed in."""
    return Path(sysconfig.get_path("purelib"))


def load_packages(root: Path, held_out: str) -> Corpus:
    """Read the sources and documentation of installed packages.

    No text is there twice: packages copy files from each other.

    Args:
        root: the folder that holds the packages.
        held_out: name of the package that validates; none of it is trained on.

    Raises:
        ValueError: the held-out package, or any other, is missing.
    """
    paths = sorted(path.relative_to(root) for path in root.rglob("*") if _is_of_package(path))
    # The held-out package comes first, so that copies of its files are left out elsewhere.
    paths.sort(key=lambda path: path.parts[0] != held_out)
    parts: dict[bool, list[str]] = {True: [], False: []}
    seen: set[str] = set()
    for path in paths:
        text = _read_text(root / path)
        if text and text not in seen:
            seen.add(text)
            parts[path.parts[0] == held_out].append(text)
    for is_held_out, what in ((True, f"the package {held_out}"), (False, "packages beside it")):
        expect(bool(parts[is_held_out]), "root", f"a folder with {what}", root)
    return Corpus(train=parts[False], validation=parts[True])


def _is_of_package(path: Path) -> bool:
    is_text = path.suffix in PACKAGE_SUFFIXES and path.is_file()
    return is_text and path.stat().st_size <= MAX_PACKAGE_FILE_BYTES


def _read_text(path: Path) -> str | None:
    try:
        with tokenize.open(path) as file:
            return file.read()
    except (SyntaxError, UnicodeDecodeError):
        return None


def _path_hash(path: Path) -> bytes:
    return hashlib.sha256(path.as_posix().encode()).digest()
