"""Config files: the settings of a run as TOML, those that come with Bough by name.

A file may name another one as its `base` and say only in what it differs. Its `[shape]` holds
either `mlp_dim` or `num_params`, which the width of the feed-forward is then computed from.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from bough.expect import expect
from bough.train.config import TrainConfig
from bough.train.shape import ModelShape, match_params

FOLDER = Path(__file__).parent / "configs"
# What a file may not say: where the results go is up to the command.
_NOT_IN_FILES = frozenset({"output", "overwrite", "shape"})
_WIDTHS = frozenset({"mlp_dim", "num_params"})
_TYPES = {"int": (int,), "float": (float, int), "bool": (bool,), "str": (str,), "Path": (str,)}


def config_names() -> list[str]:
    """Name the config files that come with Bough."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def read_config(name: str, output: Path, **changes: Any) -> TrainConfig:
    """Read the settings of a run.

    Args:
        name: one of `config_names()`, or the path of a file that ends in `.toml`.
        output: the checkpoint folder to make.
        changes: settings that replace the file's; giving `minutes` takes the place of the file's
            `steps`, and the reverse.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the name or a key is unknown, or a value is missing, of another type or out of
            range.
    """
    settings, sizes = _read(name)
    if changes.get("steps") is not None or changes.get("minutes") is not None:
        settings = {key: settings[key] for key in settings if key not in ("steps", "minutes")}
    if "source" in settings:
        settings["source"] = Path(settings["source"])
    _expect_complete(settings, TrainConfig, name)
    return TrainConfig(output=output, shape=_shape(sizes, name), **{**settings, **changes})


def _read(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings and the sizes of a file, laid over its base's."""
    is_path = name.endswith(".toml")
    expectation = f"one of {', '.join(config_names())}, or a .toml file"
    expect(is_path or name in config_names(), "config", expectation, repr(name))
    path = Path(name) if is_path else FOLDER / f"{name}.toml"
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} must be TOML, got {error}") from error
    base = settings.pop("base", None)
    sizes = settings.pop("shape", {})
    _expect_known(settings, _types_of(TrainConfig), path.name)
    _expect_known(sizes, {**_types_of(ModelShape), "num_params": (int,)}, f"{path.name} [shape]")
    if base is None:
        return settings, sizes
    base_settings, base_sizes = _read(base)
    if _WIDTHS & sizes.keys():
        base_sizes = {key: base_sizes[key] for key in base_sizes.keys() - _WIDTHS}
    return {**base_settings, **settings}, {**base_sizes, **sizes}


def _shape(sizes: Mapping[str, Any], name: str) -> ModelShape:
    given = sorted(_WIDTHS & sizes.keys())
    source = f"{name} [shape]"
    expect(len(given) == 1, source, "either mlp_dim or num_params", " and ".join(given) or "none")
    if given == ["mlp_dim"]:
        _expect_complete(sizes, ModelShape, source)
        return ModelShape(**sizes)
    others = {key: value for key, value in sizes.items() if key != "num_params"} | {"mlp_dim": 1}
    _expect_complete(others, ModelShape, source)
    return match_params(ModelShape(**others), sizes["num_params"])


def _types_of(kind: type) -> dict[str, tuple[type, ...]]:
    """The types that a file may give each field."""
    named = {field.name: str(field.type).removesuffix(" | None") for field in fields(kind)}
    return {key: _TYPES[text] for key, text in named.items() if key not in _NOT_IN_FILES}


def _expect_known(
    values: Mapping[str, Any], types: Mapping[str, tuple[type, ...]], source: str
) -> None:
    for key, value in values.items():
        expect(key in types, f"a key of {source}", f"one of {', '.join(types)}", repr(key))
        is_typed = type(value) in types[key]
        expect(is_typed, f"{source} {key}", f"of type {types[key][0].__name__}", repr(value))


def _expect_complete(values: Mapping[str, Any], kind: type, source: str) -> None:
    needed = {field.name for field in fields(kind) if field.default is MISSING} - _NOT_IN_FILES
    missing = sorted(needed - values.keys())
    expect(not missing, source, f"given {', '.join(missing)}", "none")
