"""What became of each file, as JSON lines that survive a kill and let a run go on."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self

from videomae_fast.data.errors import OutputError
from videomae_fast.data.files import AppendFile
from videomae_fast.data.lock import FolderLock
from videomae_fast.data.prepare.settings import PrepareSettings
from videomae_fast.data.prepare.transcoding import Transcoded
from videomae_fast.errors import UsageError

_VERSION: Final = 1
_SYNC_SECONDS: Final = 2.0

State = tuple[int, int]


@dataclass(frozen=True)
class Record:
    """A file that was dealt with.

    source: its path; state: its bytes and its time of change in ns, None where there was no such
    file; output: the new file's path below ``videos/``, and ``made``: what is in it; or ``kind``
    and ``reason``: why there is none.
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
        record = json.loads(line)
        source, state = record.pop("source"), record.pop("state")
        state = None if state is None else (int(state[0]), int(state[1]))
        if "output" not in record:
            return cls(source, state, **record)
        return cls(source, state, record.pop("output"), Transcoded(**record))


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
                    self._check(json.loads(line), settings)
                else:
                    record = Record.from_json(line)
                    self.records[record.source] = record
            except (ValueError, TypeError, KeyError, IndexError) as error:
                if isinstance(error, UsageError):
                    raise
                raise UsageError(
                    f"{self.path}:{number}: found {line[:80]!r}; expected what became of a file, "
                    "as JSON (take the line out: its file is then transcoded again)"
                ) from error

    def _check(self, header: dict[str, Any], settings: PrepareSettings) -> None:
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
