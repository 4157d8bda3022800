"""One process at a time works in a folder; who it is can be read there, also by other machines."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Final, Self

from videomae_fast.data.errors import OutputError
from videomae_fast.errors import UsageError

LOCK: Final = ".lock"


@dataclass(frozen=True)
class Owner:
    """Who works in a folder.

    doing: in words ("pre-trains"); pid, host; started: of the process, in clock ticks since the
    machine's start ("" where that can't be known); boot: the id of the machine's start, which
    containers on it share ("" likewise); since: local time.
    """

    doing: str
    pid: int
    host: str
    started: str
    boot: str
    since: str

    @staticmethod
    def this(doing: str) -> Owner:
        pid, since = os.getpid(), time.strftime("%Y-%m-%d %H:%M:%S")
        return Owner(doing, pid, socket.gethostname(), _started(pid), boot(), since)

    @staticmethod
    def from_bytes(content: bytes) -> Owner | None:
        """None for what says no owner: an empty file, or one that a power cut spoilt."""
        try:
            values = json.loads(content)
            if {one.name: type(values[one.name]).__name__ for one in fields(Owner)} != {
                one.name: one.type for one in fields(Owner)
            }:
                return None
            return Owner(**values)
        except (ValueError, TypeError, KeyError, RecursionError):
            return None

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"


class FolderLock:
    """Held from its making to :meth:`close`; ends with its process, however that ends.

    The kernel's lock (``flock``) on ``folder/.lock`` decides between processes of one machine, and
    what is written in the file tells who holds it. A file that a killed process left behind is
    taken over where its owner can be known to be dead: it ran on this machine. Otherwise a
    network's file system may not tell one machine of the other's lock, so a person has to decide.

    folder: made where missing; doing: what the process does there, as in "pre-trains".

    Raises:
        UsageError: another process works there, or may work there; the message says who, and what
            to do.
        OutputError: the folder, or the file in it, can't be written.
    """

    def __init__(self, folder: Path, doing: str) -> None:
        self.folder = folder
        self.path = folder / LOCK
        self._owner = Owner.this(doing)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = self._take()
            try:
                self._write()
            except OSError:
                self.close()
                raise
        except OSError as error:
            raise OutputError(f"{self.path}: can't be written: {error.strerror or error}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def check(self) -> None:
        """Raises :class:`OutputError` where the folder is no longer this process's."""
        if not _is_at(self._file, self.path) or self._owner != _read(self._file):
            raise OutputError(
                f"{self.folder}: was removed, moved or given to another process while this one "
                f"worked there ({self.path} is gone or replaced), so nothing more can be written "
                "there"
            )

    def close(self) -> None:
        """Gives the folder back. Removes the file, unless it is another's by now."""
        if self._file < 0:
            return
        try:
            if _is_at(self._file, self.path):
                self.path.unlink()
        except OSError:
            pass  # what is left says a process that has ended
        finally:
            os.close(self._file)
            self._file = -1

    def _take(self) -> int:
        while True:
            file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                held = _flock(file)
                owner = _read(file)
                if held is False:
                    who = "another process" if owner is None else str(owner)
                    doing = "works" if owner is None else owner.doing
                    raise UsageError(
                        f"{self.folder}: another process {doing} here ({who}): wait for its end, "
                        "stop it, or give another output folder"
                    )
                if owner is not None and not self._is_dead(owner, held=held is True):
                    raise UsageError(
                        f"{self.folder}: another process {owner.doing} here ({owner}), and it "
                        f"can't be seen from {self._owner.host} whether it still does. If it has "
                        f"ended, remove {self.path} and start again"
                    )
                if _is_at(file, self.path):  # else its last owner removed it meanwhile
                    return file
            except BaseException:
                os.close(file)
                raise
            os.close(file)

    def _is_dead(self, owner: Owner, *, held: bool) -> bool:
        """Whether the owner, whose lock this process has (`held`), is known to have ended."""
        here = self._owner
        if owner.boot and owner.boot == here.boot:
            if held:
                return True
            return owner.host == here.host and _started(owner.pid) != owner.started
        if owner.host != here.host:
            return False
        return held or bool(owner.boot)  # the machine was started anew since

    def _write(self) -> None:
        content = json.dumps(asdict(self._owner)).encode() + b"\n"
        os.ftruncate(self._file, 0)
        if os.pwrite(self._file, content, 0) < len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(self._file)


def _read(file: int) -> Owner | None:
    return Owner.from_bytes(os.pread(file, 1 << 16, 0))


def _flock(file: int) -> bool | None:
    """Whether this process has the lock now; None where the file system has no locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _is_at(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except OSError:
        return False


def _started(pid: int) -> str:
    """When a process started, so that a number that was given again is not taken for it."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return text.rpartition(")")[2].split()[19]


def boot() -> str:
    """This machine's name for the time since it was started; empty where it has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""
