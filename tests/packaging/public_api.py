"""What users may rely on, a line each: public names with their parameters, and commands.

``python tests/packaging/public_api.py --write`` writes ``public_api.txt`` anew. A change of that
file is a change of the interface, and belongs into CHANGELOG.md.
"""

from __future__ import annotations

import argparse
import inspect
import sys
from importlib import import_module
from pathlib import Path
from typing import Final

FILE: Final = Path(__file__).with_suffix(".txt")
MODULES: Final = (
    "videomae_fast",
    "videomae_fast.data",
    "videomae_fast.interop",
    "videomae_fast.masks",
    "videomae_fast.ops",
    "videomae_fast.recipes",
    "videomae_fast.report",
    "videomae_fast.training",
)


def surface() -> list[str]:
    """The lines of the file, in order."""
    lines = []
    for module in MODULES:
        face = import_module(module)
        lines += [_line(f"{module}.{name}", getattr(face, name)) for name in face.__all__]
    program = import_module("videomae_fast.cli.program")
    lines += [f"command {name}" for name in program.COMMANDS]
    return sorted(lines)


def _line(name: str, value: object) -> str:
    if inspect.isclass(value) or inspect.isroutine(value):
        kind = "class" if inspect.isclass(value) else "def"
        try:
            names = inspect.signature(value).parameters.values()
        except ValueError:  # of a class written in C
            return f"{kind} {name}"
        return f"{kind} {name}({', '.join(map(_parameter, names))})"
    return f"value {name}"


def _parameter(one: inspect.Parameter) -> str:
    """Name, how it is passed, and whether it may be left out; annotations vary by version."""
    star = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    keyword = "." if one.kind is inspect.Parameter.KEYWORD_ONLY else ""
    optional = "" if one.default is inspect.Parameter.empty else "=…"
    return f"{star.get(one.kind, keyword)}{one.name}{optional}"


def main() -> int:
    """Prints or writes the lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"write {FILE.name}")
    text = "".join(f"{line}\n" for line in surface())
    if parser.parse_args().write:
        FILE.write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
