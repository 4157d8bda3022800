"""What became of each file, as JSON lines that survive a kill and let a run go on."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Any, Final, Self

from videomae_fast.data.errors import OutputError, sentence
from videomae_fast.data.files import AppendFile
from videomae_fast.data.lock import FolderLock
from videomae_fast.data.prepare.names import SUFFIX
from videomae_fast.data.prepare.settings import PrepareSettings
from videomae_fast.data.prepare.transcoding import Transcoded
from videomae_fast.errors import UsageError

_VERSION: Final = 1
_SYNC_SECONDS: Final = 2.0

KINDS: Final = ("missing", "unreadable", "crashed", "timed out", "unexpected")
"""Why there is no new file of a source."""

State = tuple[int, int]


@dataclass(frozen=True)
class Record:
    """A file that was dealt with.

    source: its path; state: its bytes and its time of change in ns, None where there was no such
    file; output: the new file's path below ``videos/``, and ``made``: what is in it; or ``kind``
    (one of ``KINDS``) and ``reason``: why there is none.
    """

    source: str
    state: State | None
    output: str | None = None
    made: Transcoded | None = None
    kind: str = ""
    reason: str = ""

    def to_json(self) -> str:
        record: dict[str, Any] = {"source": self.source, "state": self.state}
        if self.made is not None:
            record |= {"output": self.output, **asdict(self.made)}
        else:
            record |= {"kind": self.kind, "reason": self.reason}
        return json.dumps(record, ensure_ascii=False)

    @classmethod
    def from_json(cls, line: str) -> Record:
        """
        Raises:
            ValueError, KeyError, TypeError: no record, or its file lies outside of ``videos/``.
        """
        record = _object(line)
        source, state = record.pop("source"), record.pop("state")
        if not isinstance(source, str):
            raise TypeError(f"source {source!r}")
        if state is not None:
            size, changed = state
            state = _whole("state", size), _whole("state", changed)
        if "output" not in record:
            made_not = cls(source, state, **record)
            if made_not.kind not in KINDS or not isinstance(made_not.reason, str):
                raise ValueError(f"kind {made_not.kind!r}")
            return made_not
        output = _inside(record.pop("output"))
        made = Transcoded(**record)
        for field in fields(made):
            value = getattr(made, field.name)
            if field.type == "int":
                _whole(field.name, value)
            elif not isinstance(value, str) and not (value is None and "None" in str(field.type)):
                raise TypeError(f"{field.name} {value!r}")
        return cls(source, state, output, made)


def _object(line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(record, dict):
        raise TypeError("no JSON object")
    return record


def _whole(name: str, value: Any) -> int:
    if type(value) is not int or value < 0:
        raise TypeError(f"{name} {value!r}")
    return value


def _inside(output: Any) -> str:
    """A path as :class:`Names` gives them: below ``videos/``, wherever it is joined to."""
    if not isinstance(output, str):
        raise TypeError(f"output {output!r}")
    path = PurePosixPath(output)
    within = not path.is_absolute() and ".." not in path.parts and "\0" not in output
    if not within or str(path) != output or not output.endswith(SUFFIX):
        raise ValueError(f"output {output!r} is no path of a new file below videos/")
    return output


class Journal:
    """``OUTPUT/prepare.jsonl``: the settings, then a line per file; the last one of a file counts.

    Lines are appended at once, and synced every two seconds. New files are synced
    before their lines are written, so a line never speaks of a file that is not there. A last
    line that was cut off by a kill is dropped. One process at a time holds the output.

    Raises :class:`UsageError` where the output was made with other settings, another process
    works on it, or a line can't be read, and :class:`OutputError` where it can't be written.
    """

    def __init__(self, path: Path, settings: PrepareSettings) -> None:
        self.path = path
        self.records: dict[str, Record] = {}
        self._lock = FolderLock(path.parent, "prepares files")
        try:
            self._file = AppendFile(path)
            try:
                self._load(settings)
            except BaseException:
                self._file.close()
                raise
        except BaseException:
            self._lock.close()
            raise
        self._synced = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, record: Record) -> None:
        """Writes what became of a file."""
        self._file.write(record.to_json() + "\n")
        self.records[record.source] = record
        if time.monotonic() - self._synced > _SYNC_SECONDS:
            self._file.sync()
            self._synced = time.monotonic()

    def close(self) -> None:
        """Lets go of the journal. What was added before it is written already."""
        self._file.close()
        self._lock.close()

    def _load(self, settings: PrepareSettings) -> None:
        try:
            content = self.path.read_bytes()
            with self.path.open("r+b") as file:
                file.truncate(content.rfind(b"\n") + 1)  # what follows it was cut off
        except OSError as error:
            raise OutputError(
                f"{self.path}: can't be read or written: {error.strerror or error}"
            ) from error
        lines = content.decode("utf-8", "surrogateescape").split("\n")
        if len(lines) == 1:
            header = {"videomae_fast_prepare": _VERSION, "settings": settings.to_dict()}
            self._file.write(json.dumps(header) + "\n")
            return
        for number, line in enumerate(lines[:-1], start=1):
            try:
                if number == 1:
                    self._check(_object(line), settings)
                else:
                    record = Record.from_json(line)
                    self.records[record.source] = record
            except (ValueError, TypeError, KeyError, IndexError) as error:
                if isinstance(error, UsageError):
                    raise
                wanted = "what became of a file, as JSON"
                remedy = "take the line out: its file is then transcoded again"
                if number == 1:
                    wanted, remedy = "the settings, as JSON", "give another output folder"
                raise UsageError(
                    f"{self.path}:{number}: found {line[:80]!r}; expected {wanted} "
                    f"({sentence(error)}); {remedy}"
                ) from error
        self._check_owners()

    def _check_owners(self) -> None:
        """Raises where two sources have one new file: clips of one would be called the other's."""
        owners: dict[str, str] = {}
        for source, record in self.records.items():
            if record.output is None:
                continue
            other = owners.setdefault(record.output.casefold(), source)
            if other != source:
                raise UsageError(
                    f"{self.path}: {other!r} and {source!r} have the same new file "
                    f"{record.output!r}; take the line of one of them out"
                )

    def _check(self, header: dict[str, Any], settings: PrepareSettings) -> None:
        if not isinstance(header["settings"], dict):
            raise TypeError("no settings")
        if header["videomae_fast_prepare"] != _VERSION:
            raise UsageError(f"{self.path}: made by another version; give another output folder")
        wanted = settings.to_dict()
        other = [
            f"{name.replace('_', ' ')} {header['settings'].get(name)} there, {value} now"
            for name, value in wanted.items()
            if header["settings"].get(name) != value
        ]
        if other:
            raise UsageError(
                f"{self.path.parent} holds files made with other settings ({'; '.join(other)}): "
                "give the same settings or another output folder"
            )
