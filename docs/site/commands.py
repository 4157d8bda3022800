"""The reference page of the command line: what ``--help`` of each command says."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from importlib import import_module

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

PLACE = "reference/commands.md"
_COLUMNS = "110"


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Adds the page."""
    files.append(File.generated(config, PLACE, content=page()))
    return files


def page() -> str:
    """Markdown: a heading per command and subcommand, with its help."""
    program = import_module("videomae_fast.cli.program")
    parsers = program.build_parser()[1]
    parts = [
        "# Commands",
        "What `videomae-fast COMMAND --help` says. Where it has a configuration, each of its "
        "fields is an option: see the pages beside this one.",
    ]
    for name, command in program.COMMANDS.items():
        import_module(command.module).add_arguments(parsers[name])
        for full, parser in _with_children(name, parsers[name]):
            parts.append(f"## {full}\n\n```text\n{_help(parser)}```")
    return "\n\n".join(parts) + "\n"


def _with_children(
    name: str, parser: argparse.ArgumentParser
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    yield name, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child, its in action.choices.items():
                yield from _with_children(f"{name} {child}", its)


def _help(parser: argparse.ArgumentParser) -> str:
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = _COLUMNS
    try:
        return parser.format_help()
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before
