"""The command line: :mod:`~videomae_fast.cli.program` finds the subcommand; each has a file.

Nothing is defined here: the modules become names of this package, and ``list`` hides the builtin.
"""

from __future__ import annotations

from videomae_fast.cli.program import COMMANDS, Command, build_parser, main

__all__ = ["COMMANDS", "Command", "build_parser", "main"]
