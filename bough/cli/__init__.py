"""The command line: one file a command, each a thin layer over the floors below."""

from bough.cli.app import main

__all__ = ["main"]
