"""Stores of a few clips, written in this process."""

from __future__ import annotations

from pathlib import Path

from videomae_fast.data.store.incoming import ListClips, look
from videomae_fast.data.store.lance_writing import LanceWriter
from videomae_fast.data.store.tar_writing import TarWriter
from videomae_fast.recipes.source import ListFormat

LABELS = [3, 0, 2, 1, 0, 4]
"""Of the six clips that tests of data share."""


def write_store(
    folder: Path,
    list_path: Path,
    *,
    format: ListFormat = "pretrain",
    root: Path | None = None,
    tar_bytes: int = 10**9,
    kind: str = "tar",
) -> Path:
    """Adds the videos of a list to a store of a kind, which is made where missing."""
    clips = ListClips(list_path, format, root)
    with LanceWriter(folder) if kind == "lance" else TarWriter(folder, tar_bytes) as writer:
        for number in range(len(clips)):
            clip = clips[number]
            assert clip.video is not None
            writer.add(clip, look(clip), clip.video.load().content)
        writer.commit()
    return folder


def flip_byte(path: Path, place: int) -> None:
    """Damages one byte of a file."""
    content = bytearray(path.read_bytes())
    content[place] ^= 255
    path.write_bytes(content)
