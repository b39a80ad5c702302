"""How the command line says what went wrong: one line on stderr, exit code 2 for bad input."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import typer

from bough.expect import expect

_PICTURES = (".pdf", ".png", ".svg")


@contextmanager
def refusing_bad_input() -> Iterator[None]:
    """Turn what the floors below raise for bad input into one line and exit code 2.

    ValueError says what was expected and what was found, OSError which file could not be used,
    NotImplementedError what works instead, typer which argument it does not understand. A rank
    that dies is one line too, but exit code 1. Anything else is our own fault and keeps its
    traceback.
    """
    try:
        yield
    except typer.TyperException as error:
        if not error.format_message():  # help has been printed in place of it
            raise SystemExit(2) from error
        _refuse(error.format_message())
    except ChildProcessError as error:
        _refuse(str(error), exit_code=1)
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        _refuse(what)
    except (ValueError, NotImplementedError) as error:
        _refuse(str(error))


def check_outputs(*, json: Path | None = None, png: Path | None = None) -> None:
    """Make the folders of output files, and refuse what could not be written, before the work.

    Raises:
        ValueError: a path is a folder, or `png` is given and matplotlib is not installed or does
            not know its suffix.
        OSError: a folder cannot be made.
    """
    if png is not None and find_spec("matplotlib") is None:
        raise ValueError(f"--png must be left out without matplotlib (extra bench), got {png}")
    for path in (json, png):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            expect(not path.is_dir(), "output", "a file, not a folder", path)
    if png is not None:
        expect(png.suffix in _PICTURES, "--png", f"a file in {', '.join(_PICTURES)}", png)


def _refuse(what: str, exit_code: int = 2) -> None:
    print(f"bough: {' '.join(what.split())}", file=sys.stderr)
    raise SystemExit(exit_code)
