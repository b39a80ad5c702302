"""Imports go down the floors only, and files stay small."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

import bough

PACKAGE = Path(bough.__file__).parent
FLOORS = {
    "cli": 9,
    "__main__": 9,
    "server": 8,
    "bench": 8,
    "train": 8,
    "engine": 7,
    "models": 6,
    "layers": 5,
    "integrations": 5,
    "attend": 4,
    "kernels": 3,
    "plan": 2,
    "cache": 2,
    "workloads": 2,
    "spec": 1,
    "kv": 1,
    "fp8": 1,
    "forest": 1,
    "page_trie": 1,
    "tree_order": 1,
    "drafts": 1,
    "device": 1,
    "rates": 1,
    "parallel": 1,
    "expect": 0,
}
# What backends may share; everything else in `kernels` belongs to one of them.
SHARED_BY_BACKENDS = {"", "backend"}
# Gluon is Triton's explicit level: it writes the tiles and leaves all else to plain Triton.
BUILDS_ON = {"gluon": "triton", "expanded": "triton"}


@cache
def modules() -> dict[str, Path]:
    """Every module below the package's root, by its dotted name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        if len(parts) > 1:
            found[".".join(parts)] = path
    return found


def imports_of(source: str, known: set[str]) -> set[str]:
    """Modules of this package that `source` imports, at the top or inside a function."""
    found = set()
    for statement in ast.walk(ast.parse(source)):
        if isinstance(statement, ast.Import):
            found |= {name.name for name in statement.names}
        elif isinstance(statement, ast.ImportFrom):
            assert statement.level == 0, f"line {statement.lineno}: relative import"
            module = statement.module or ""
            inner = {f"{module}.{name.name}" for name in statement.names}
            found |= inner & known or {module}
    return {name for name in found if name == "bough" or name.startswith("bough.")}


def part(module: str, at: int) -> str:
    """Name `at` of a dotted module, empty where there is none."""
    return (module.split(".") + [""] * at)[at]


def fault(importer: str, imported: str) -> str | None:
    """What is wrong with an import, or None."""
    if imported == "bough":
        return "the package's root stands above all floors"
    above, below = part(importer, 1), part(imported, 1)
    if FLOORS[below] > FLOORS[above]:
        return f"goes up from floor {FLOORS[above]} to {FLOORS[below]}"
    if above == "integrations" and below == "layers":
        return "integrations import floors 1 to 4 only"
    backend = part(imported, 2)
    if below == "kernels" and backend not in SHARED_BY_BACKENDS:
        own = part(importer, 2)
        is_own = above == "kernels" and backend in (own, BUILDS_ON.get(own))
        if not is_own and importer != "bough.attend":
            return "only bough.attend and the backend itself import a backend"
    return None


@pytest.mark.parametrize("module", modules())
def test_imports_go_down_the_floors_only(module: str) -> None:
    assert part(module, 1) in FLOORS, f"{module} has no floor"
    imported = imports_of(modules()[module].read_text(encoding="utf-8"), set(modules()))
    faults = {name: fault(module, name) for name in sorted(imported)}
    assert not any(faults.values()), {name: why for name, why in faults.items() if why}


@pytest.mark.parametrize("module", modules())
def test_a_file_fits_on_a_few_screens(module: str) -> None:
    most = 500 if part(module, 1) == "kernels" else 300
    assert len(modules()[module].read_text(encoding="utf-8").splitlines()) <= most


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("bough.plan.fold", "bough.attend"),
        ("bough.kernels.cpu.backend", "bough.kernels.reference"),
        ("bough.kernels.triton.backend", "bough.kernels.gluon.backend"),
        ("bough.kernels", "bough.kernels.cpu"),
        ("bough.bench.kernel", "bough.kernels.cpu"),
        ("bough.engine.llm", "bough.bench"),
        ("bough.integrations.vllm", "bough.layers.rope"),
        ("bough.cache.pool", "bough"),
    ],
)
def test_an_import_against_the_floors_is_found(importer: str, imported: str) -> None:
    assert fault(importer, imported)


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("bough.attend", "bough.kernels.cpu"),
        ("bough.kernels.cpu.backend", "bough.kernels.cpu.planes"),
        ("bough.kernels.gluon.backend", "bough.kernels.triton.merge_states"),
        ("bough.kernels.cpu.backend", "bough.kernels.backend"),
        ("bough.forest", "bough.page_trie"),
        ("bough.cli.app", "bough.cli.train"),
    ],
)
def test_an_import_along_the_floors_passes(importer: str, imported: str) -> None:
    assert fault(importer, imported) is None


def test_imports_inside_functions_and_of_submodules_are_seen() -> None:
    source = "def f():\n    from bough.kernels import cpu\n    import bough.plan.cost\n"
    found = imports_of(source, {"bough.kernels.cpu", "bough.plan.cost"})
    assert found == {"bough.kernels.cpu", "bough.plan.cost"}
