"""Typed look-ups in foreign JSON files; errors name the file, the key and what was found."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from bough.expect import expect


class Fields:
    """One JSON object. A key that is null counts as absent.

    Args:
        values: the object.
        source: what errors call it, such as `config.json`.
    """

    def __init__(self, values: dict[str, Any], source: str) -> None:
        self.values = values
        self.source = source

    @classmethod
    def read(cls, path: Path) -> Fields:
        """Read a file that holds one JSON object.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file holds something else.
        """
        if not path.is_file():
            raise FileNotFoundError(f"{path.name} must be in {path.parent}, got no such file")
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} must be JSON, got {error}") from error
        expect(isinstance(values, dict), str(path), "a JSON object", type(values).__name__)
        return cls(values, path.name)

    def has(self, key: str) -> bool:
        """Whether the key is there and not null."""
        return self.values.get(key) is not None

    def refuse_code(self) -> None:
        """Refuse a file that names Python code of its own.

        Raises:
            ValueError: the file has an `auto_map`.
        """
        name, found = f"{self.source} auto_map", self.values.get("auto_map")
        expect(found is None, name, "absent (code of a checkpoint is never run)", found)

    def integer(self, key: str, default: int | None = None, *, minimum: int = 1) -> int:
        """A whole number from `minimum` up; required where there is no default."""
        value = self._get(key, default)
        is_valid = isinstance(value, int) and not isinstance(value, bool) and value >= minimum
        return self._checked(key, value, is_valid, f"a whole number from {minimum} up")

    def number(self, key: str, default: float | None = None) -> float:
        """A positive number; required where there is no default."""
        value = self._get(key, default)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        is_valid = is_number and math.isfinite(value) and value > 0
        return float(self._checked(key, value, is_valid, "a positive number"))

    def flag(self, key: str, default: bool) -> bool:
        """true or false."""
        value = self._get(key, default)
        return self._checked(key, value, isinstance(value, bool), "true or false")

    def text(self, key: str, default: str | None = None) -> str:
        """A string; required where there is no default."""
        value = self._get(key, default)
        return self._checked(key, value, isinstance(value, str), "a string")

    def texts(self, key: str) -> list[str]:
        """A list of strings, empty where the key is absent."""
        value = self._get(key, [])
        is_valid = isinstance(value, list) and all(isinstance(item, str) for item in value)
        return self._checked(key, value, is_valid, "a list of strings")

    def token_ids(self, key: str) -> tuple[int, ...]:
        """One token id or a list of them, empty where the key is absent."""
        value = self._get(key, [])
        ids = value if isinstance(value, list) else [value]
        is_valid = all(isinstance(i, int) and not isinstance(i, bool) and i >= 0 for i in ids)
        self._checked(key, value, is_valid, "a token id or a list of token ids")
        return tuple(ids)

    def nested(self, key: str) -> Fields:
        """An object of its own, empty where the key is absent."""
        value = self._get(key, {})
        self._checked(key, value, isinstance(value, dict), "a JSON object")
        return Fields(value, f"{self.source} {key}")

    def _get(self, key: str, default: Any) -> Any:
        value = self.values.get(key)
        return default if value is None else value

    def _checked(self, key: str, value: Any, is_valid: bool, expectation: str) -> Any:
        expect(is_valid, f"{self.source} {key}", expectation, repr(value))
        return value
