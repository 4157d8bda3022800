"""Runs the tutorials, and holds or writes what they show of it.

A tutorial is Markdown whose blocks are run from top to bottom in an empty folder: ``python`` in one
namespace, ``shell`` through the program's own entry. A block with a title is written to the file of
that name, and ``text title="output"`` is what the block before it prints: "…" stands for any lines,
and numbers with a fraction are equal where they differ by less than their noise. A picture of
``images/`` is a file that the run left.

``python -m tests.site.tutorials [NAME ...]`` runs them and writes outputs and pictures anew.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from videomae_fast.cli import main as program

FOLDER: Final = Path(__file__).parents[2] / "docs" / "tutorials"
IMAGES: Final = re.compile(r"!\[[^\]]*\]\(images/([^)]+)\)")

_FENCE: Final = re.compile(
    r'^```(?P<language>\w+)(?: title="(?P<title>[^"]+)")?\n(?P<code>.*?)^```$', re.M | re.S
)
_NUMBER: Final = re.compile(r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?")
_RELATIVE, _ABSOLUTE = 0.1, 0.02


class TutorialError(AssertionError):
    """A tutorial does not do what it shows."""


@dataclass(frozen=True)
class Block:
    """A block of a tutorial: its language, title and text, and where the text stands."""

    language: str
    title: str | None
    code: str
    begin: int
    end: int

    @property
    def is_output(self) -> bool:
        """Whether it shows what the block before it prints."""
        return self.title == "output"


def tutorials() -> list[Path]:
    """All of them, by name."""
    return sorted(path for path in FOLDER.glob("*.md") if path.name != "README.md")


def blocks(text: str) -> Iterator[Block]:
    """The blocks of a tutorial in order."""
    for one in _FENCE.finditer(text):
        yield Block(one["language"], one["title"], one["code"], *one.span("code"))


def run(text: str, folder: Path) -> list[tuple[Block, str]]:
    """Runs a tutorial in a folder.

    Args:
        text: the tutorial.
        folder: empty; it is the working folder meanwhile.

    Returns:
        The blocks that show an output, and what was printed.

    Raises:
        TutorialError: a command that fails, or a language that nothing runs.
    """
    shown, printed = [], ""
    names: dict[str, object] = {"__name__": "__main__"}
    with contextlib.chdir(folder):
        for block in blocks(text):
            if block.is_output:
                shown.append((block, printed))
                continue
            if block.title is not None:
                Path(block.title).write_text(block.code, encoding="utf-8")
            elif block.language not in ("python", "shell"):
                raise TutorialError(f"nothing runs {block.language}: give the block a title")
            printed = _printed(block, names)
    return shown


def _printed(block: Block, names: dict[str, object]) -> str:
    stream = _stream()
    with contextlib.redirect_stdout(stream):
        if block.language == "python":
            exec(compile(block.code, block.title or "tutorial", "exec"), names)
        elif block.language == "shell":
            with contextlib.redirect_stderr(stream):
                for line in block.code.replace("\\\n", " ").splitlines():
                    _command(line, stream)
    return _text(stream)


def _stream() -> io.TextIOWrapper:
    """A stand-in for the standard output, whose bytes some commands write to."""
    return io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True)


def _text(stream: io.TextIOWrapper) -> str:
    stream.seek(0)
    return stream.read()


def _command(line: str, stream: io.TextIOWrapper) -> None:
    words = shlex.split(line, comments=True)
    if words[:1] == ["cat"]:
        stream.write("".join(Path(word).read_text(encoding="utf-8") for word in words[1:]))
    elif words[:1] == ["videomae-fast"]:
        kept = words[-2:-1] == [">"]
        output = _stream() if kept else stream
        try:
            with contextlib.redirect_stdout(output):
                code = program(words[1:-2] if kept else words[1:])
        except SystemExit as stop:  # argparse's
            code = stop.code
        if code:
            raise TutorialError(f"{line}\nended with {code}:\n{_text(stream)}")
        if kept:
            Path(words[-1]).write_text(_text(output), encoding="utf-8")
    elif words:
        raise TutorialError(f"nothing runs {line}")


def differs(shown: str, printed: str) -> str | None:
    """The first line that was shown and not printed, None where all were."""
    lines = iter(printed.splitlines())
    free = False  # lines may be passed over
    for line in shown.splitlines():
        if line.strip() == "…":
            free = True
        elif not any(_alike(line, one) for one in (lines if free else [next(lines, "")])):
            return line
        else:
            free = False
    return None if free else next((f"{line} (printed, not shown)" for line in lines), None)


def _alike(shown: str, printed: str) -> bool:
    if _NUMBER.sub("#", shown).split() != _NUMBER.sub("#", printed).split():
        return False
    return all(map(_close, _NUMBER.findall(shown), _NUMBER.findall(printed)))


def _close(number: str, other: str) -> bool:
    if number.lstrip("-").replace(",", "").isdecimal():  # a count
        return number == other
    a, b = (float(one.replace(",", "")) for one in (number, other))
    return abs(a - b) <= max(_RELATIVE * abs(a), _ABSOLUTE)


def rewritten(text: str, shown: Sequence[tuple[Block, str]]) -> str:
    """The tutorial with the outputs of a run; lines that "…" left out stay so."""
    for block, printed in reversed(shown):
        text = text[: block.begin] + _refreshed(block.code, printed) + text[block.end :]
    return text


def _refreshed(shown: str, printed: str) -> str:
    if "…" not in shown:
        return f"{printed.rstrip()}\n"
    left = printed.splitlines()
    fresh = []
    for line in shown.splitlines():
        if line.strip() != "…":
            pattern = _NUMBER.sub("#", line).split()
            same = [i for i, one in enumerate(left) if _NUMBER.sub("#", one).split() == pattern]
            if same:
                best = max(same, key=lambda i: _equal_numbers(line, left[i]))
                line, left = left[best], left[best + 1 :]
        fresh.append(line)
    return "".join(f"{line}\n" for line in fresh)


def _equal_numbers(line: str, other: str) -> int:
    return sum(map(str.__eq__, _NUMBER.findall(line), _NUMBER.findall(other)))


def main(names: Sequence[str]) -> None:
    """Runs tutorials and writes what they show."""
    os.environ["OMP_NUM_THREADS"] = "1"
    for path in tutorials():
        if names and path.stem not in names:
            continue
        text = path.read_text(encoding="utf-8")
        with tempfile.TemporaryDirectory() as folder:
            path.write_text(rewritten(text, run(text, Path(folder))), encoding="utf-8")
            for image in IMAGES.findall(text):
                (FOLDER / "images").mkdir(exist_ok=True)
                shutil.copyfile(Path(folder, image), FOLDER / "images" / Path(image).name)


if __name__ == "__main__":
    main(sys.argv[1:])
