"""What comes into a store: the videos of a list, of tar files as WebDataset has them, or of another
store."""

from __future__ import annotations

import json
import os
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any, Final

from videomae_fast.data.decoders.content import VideoBytes, taken
from videomae_fast.data.errors import DecodeError
from videomae_fast.data.lists import ClipList, load_list
from videomae_fast.data.lists.video_files import EXTENSIONS
from videomae_fast.data.probe import ProbeJob, probe_file
from videomae_fast.data.store.base import UNKNOWN, ClipStore, Row, StoreError
from videomae_fast.recipes.source import ListFormat

_LARGEST_TEXT: Final = 1 << 20


@dataclass(frozen=True)
class FileClip:
    """A video file; where it is loaded, a folder is refused in words."""

    path: Path

    def load(self) -> VideoBytes:
        taken(self.path)
        try:
            return in_memory(self.path.name, self.path.read_bytes())
        except OSError as error:
            raise DecodeError(f"can't be read: {error.strerror or error}") from error


@dataclass(frozen=True)
class TarMember:
    """A video in a tar file."""

    tar: Path
    name: str
    offset: int
    size: int

    def load(self) -> VideoBytes:
        try:
            with self.tar.open("rb") as file:
                file.seek(self.offset)
                content = file.read(self.size)
        except OSError as error:
            raise DecodeError(f"can't be read: {error.strerror or error}") from error
        if len(content) < self.size:
            raise DecodeError("the tar file is cut off there")
        return in_memory(self.name, content)


def in_memory(name: str, content: bytes) -> VideoBytes:
    """Bytes as a video."""
    return VideoBytes(name, content, zlib.crc32(content))


@dataclass(frozen=True)
class Incoming:
    """A clip that is to be stored.

    Attributes:
        index: its place among all that come.
        video: loads it; None for what comes with its bytes, or can't be stored (``refused`` says
            why).
        source, label: for its row.
        place: where it is named, for messages.
        suffix: the ending of its file.
    """

    index: int
    video: FileClip | TarMember | None
    source: str
    label: int
    place: str
    suffix: str
    refused: str = ""


@dataclass(frozen=True)
class Facts:
    """What was found in a clip; the fields are those of :class:`~.base.Row`."""

    size: int
    crc32: int
    sha256: bytes
    frames: int
    rate: float
    longest_gop: int

    def row(self, clip: Incoming, name: str) -> Row:
        """What its store is to know of it."""
        return Row(name=name, source=clip.source, label=clip.label, **self.__dict__)


def look(clip: Incoming) -> Facts:
    """Reads a clip: its checksums, and its packets and first frame as ``probe`` does.

    Raises:
        DecodeError: it can't be read as a video; the message says why.
    """
    if clip.video is None:
        raise DecodeError(clip.refused)
    loaded = clip.video.load()
    found = probe_file(ProbeJob(0, loaded, 0, -1, "", decode=False))
    return Facts(
        loaded.size,
        loaded.checksum,
        sha256(loaded.content).digest(),
        found.frames,
        found.rate or 0.0,
        UNKNOWN if found.longest_gop is None else found.longest_gop,
    )


class ListClips:
    """The videos of a list.

    Args:
        list_path: of the list.
        format: of its lines.
        root: folder that its relative paths start from.
        below: folder that sources are told from; None tells them as the list has them.

    Raises:
        ListError: it can't be read.
    """

    def __init__(
        self, list_path: Path, format: ListFormat, root: Path | None, below: Path | None = None
    ) -> None:
        self._entries: ClipList = load_list(list_path, format)
        self._root, self._below = root, below

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, number: int) -> Incoming:
        entry = self._entries[number]
        path = Path(os.path.join(self._root or "", entry.path))
        suffix = path.suffix if len(path.suffix) < 16 else ""
        folder = "" if entry.is_video else "is a folder of frames, and a store holds videos"
        video = FileClip(path) if entry.is_video else None
        place, source = self._entries.place(number), entry.path
        if self._below is not None and path.is_relative_to(self._below):
            source = str(path.relative_to(self._below))
        return Incoming(number, video, source, entry.label, place, suffix, folder)


def stored_clip(store: ClipStore, number: int) -> tuple[Incoming, Facts, bytes]:
    """A row of a store for another one: nothing is looked at anew but its checksum.

    Raises:
        StoredClipError: it can't be read.
    """
    known = store.row(number)
    facts = Facts(**{one.name: getattr(known, one.name) for one in fields(Facts)})
    suffix = PurePosixPath(known.name).suffix
    clip = Incoming(number, None, known.source, known.label, store.place(number), suffix)
    return clip, facts, store.read(number)


def tar_clips(tar: Path) -> Iterator[Incoming]:
    """The videos of a tar file: members with the ending of one, with label and source of the
    members beside them that have the same name up to its first dot (``.cls``, ``.json``).

    Args:
        tar: not compressed.

    Yields:
        Clips in the order of the file, all with index 0.

    Raises:
        StoreError: it is no such file, or holds no video.
    """
    found: list[tuple[TarMember, dict[str, bytes]]] = []
    beside: dict[str, dict[str, bytes]] = {}
    try:
        with tarfile.open(tar, "r:") as file:
            for member in file:
                if not member.isreg() or member.issparse():
                    continue
                key, ending = _split(member.name)
                texts = beside.setdefault(key, {})
                if f".{ending.rpartition('.')[2].lower()}" in EXTENSIONS:
                    place = TarMember(tar, member.name, member.offset_data, member.size)
                    found.append((place, texts))
                elif ending in ("cls", "json") and member.size <= _LARGEST_TEXT:
                    opened = file.extractfile(member)
                    texts[ending] = b"" if opened is None else opened.read()
    except (tarfile.TarError, OSError, EOFError) as error:
        raise StoreError(
            f"{tar}: can't be read as a tar file without compression ({error}): unpack what is "
            "compressed, get what is cut off anew"
        ) from error
    if not found:
        raise StoreError(f"{tar}: no video in it; members that end in .mp4, .mkv, ... are")
    for video, texts in found:
        label, source = _said(tar, video, texts)
        suffix = PurePosixPath(video.name).suffix
        yield Incoming(0, video, source, label, f"{tar}:{video.name}", suffix)


def _split(name: str) -> tuple[str, str]:
    """A member's name at the first dot behind its folders, as WebDataset splits it."""
    folders, _, last = name.rpartition("/")
    key, _, ending = last.partition(".")
    return f"{folders}/{key}", ending


def _said(tar: Path, member: TarMember, texts: Mapping[str, bytes]) -> tuple[int, str]:
    """Label and source of a member; StoreError where they are said in another way."""
    about: Any = {}
    label: Any = None
    try:
        if "json" in texts:
            about = json.loads(texts["json"])
        if not isinstance(about, dict):
            about = {}
        label = int(texts["cls"]) if "cls" in texts else about.get("label")
    except (ValueError, RecursionError) as error:
        raise StoreError(
            f"{tar}: what stands beside {member.name} can't be read: {error}"
        ) from None
    label = UNKNOWN if label is None else label
    if type(label) is not int or not UNKNOWN <= label < 2**31:
        raise StoreError(f"{tar}: {member.name} has the label {label!r}, and labels are numbers")
    source = about.get("source")
    return label, source if isinstance(source, str) and source else f"{tar.name}/{member.name}"
