"""The commands there are. What needs torch is imported when a command runs, so help is quick."""

from __future__ import annotations

import sys

import typer

from bough.cli.bench import bench
from bough.cli.calibrate import calibrate
from bough.cli.errors import refusing_bad_input
from bough.cli.generate import generate
from bough.cli.plan import plan
from bough.cli.train import train

app = typer.Typer(
    name="bough",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.command()(generate)
app.command()(plan)
app.add_typer(bench, name="bench")
app.command()(calibrate)
app.command()(train)


@app.callback()
def _bough() -> None:
    """Decode attention that reads every shared branch of the KV cache once."""


def main() -> None:
    """Run the command line on `sys.argv`; bad input is one line on stderr and exit code 2."""
    with refusing_bad_input():
        sys.exit(app(standalone_mode=False))
