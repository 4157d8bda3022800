"""Text files that are whole or not there, and files of lines that survive a power cut."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from videomae_fast.data.errors import ListError, OutputError


def write_lines(path: Path, lines: Iterable[str], *, parents: bool = True) -> None:
    """Writes lines (with their ends) under another name, syncs and renames; paths keep their bytes.

    parents: the folder is made where missing.

    Raises :class:`OutputError` where the file can't be written.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        if parents:
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open(
                "w", encoding="utf-8", errors="surrogateescape", newline="\n"
            ) as file:
                file.writelines(lines)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: can't be written: {error.strerror or error}") from error


def make_folder(path: Path, *, parents: bool = True) -> None:
    """Makes a folder, with its parents or without, where missing; :class:`OutputError` where it
    can't be."""
    try:
        path.mkdir(parents=parents, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: can't be made: {error.strerror or error}") from error


class AppendFile:
    """A text file that grows by whole lines; what can't be written whole is taken back.

    The file is made where missing. Nothing is held back in memory; paths keep their bytes.

    Raises:
        OutputError: it can't be opened or written, with the file's name.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise self._error(error) from error

    def write(self, lines: str) -> None:
        """lines: with their ends."""
        content = lines.encode("utf-8", "surrogateescape")
        if not content:
            return
        try:
            before = os.fstat(self._file.fileno()).st_size
            try:
                written = self._file.write(content)
                if written < len(content):  # a disk that was nearly full
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                self._file.truncate(before)
                raise
        except OSError as error:
            raise self._error(error) from error

    def sync(self) -> None:
        """Puts what was written on the disk."""
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._error(error) from error

    def check(self) -> None:
        """Raises :class:`OutputError` where the file is no longer the one of its name."""
        try:
            there = os.path.samestat(os.fstat(self._file.fileno()), os.stat(self.path))
        except OSError:
            there = False
        if not there:
            raise OutputError(
                f"{self.path}: was removed, moved or replaced while it was written, so what "
                "follows would be lost"
            )

    def close(self) -> None:
        self._file.close()

    def _error(self, error: OSError) -> OutputError:
        return OutputError(f"{self.path}: can't be written: {error.strerror or error}")


class Kept(NamedTuple):
    """What :func:`keep_steps_before` kept: the lines without their ends; aside: where the file
    with its damaged lines was put, None where it had none."""

    lines: list[str]
    aside: Path | None


def keep_steps_before(
    path: Path, start_step: int, step_of: Callable[[str], int], *, every_step: bool = False
) -> Kept:
    """Drops from a file of lines, in order of steps, those of ``start_step`` and later.

    Damage behind the lines that stay (a power cut leaves zeros or old blocks there) is dropped
    too: these steps are made again. The file with the damage is kept as ``<name>.damaged``.

    step_of: the step of a line; raises ValueError, KeyError or TypeError for what is no such line.
    every_step: each step has a line.

    Raises:
        ListError: a damaged line among those that stay, with its number.
        OutputError: the file can't be read or written.
    """
    kept: list[str] = []
    damaged: tuple[int, str] | None = None
    last = -1
    for number, line in enumerate(_whole_lines(path), start=1):
        try:
            step = step_of(line)
        except (ValueError, KeyError, TypeError, RecursionError):
            damaged = damaged or (number, line)
            continue
        if step < start_step:
            if damaged is not None:
                break
            kept.append(line)
            last = step
    else:
        if damaged is not None and not (every_step and last < start_step - 1):
            return Kept(kept, _replaced(path, kept))
    if damaged is not None:
        raise ListError(
            f"{path}:{damaged[0]}: found {damaged[1][:80]!r}, expected a line of JSON as this "
            "program writes it; move the file away to start a new one"
        )
    write_lines(path, (f"{line}\n" for line in kept))
    return Kept(kept, None)


def _replaced(path: Path, kept: list[str]) -> Path:
    """Leaves a copy of a damaged file, and these lines in its place; returns the copy's path.

    At no moment is there no file: without it, a run that is killed here would lose its lines.
    """
    aside = path.with_name(path.name + ".damaged")
    try:
        shutil.copyfile(path, aside)
    except OSError as error:
        raise OutputError(f"{aside}: can't be written: {error.strerror or error}") from error
    write_lines(path, (f"{line}\n" for line in kept))
    return aside


def _whole_lines(path: Path) -> list[str]:
    """The lines, without what follows the last line end: that was cut off."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise OutputError(f"{path}: can't be read: {error.strerror or error}") from error
    return content.decode("utf-8", "surrogateescape").split("\n")[:-1]
