"""A video that lies in memory is the very video that lies in a file."""

from __future__ import annotations

import re
import zlib
from pathlib import Path

import numpy as np
import pytest

from tests.support.kinds import KINDS
from tests.support.real_clips import CLIPS, needs_clips
from tests.support.videos import write_video
from videomae_fast.data import DECODERS, DecodeError
from videomae_fast.data.decoders import VideoBytes
from videomae_fast.data.decoders.pyav import PyAVReader


def in_memory(path: Path) -> VideoBytes:
    content = path.read_bytes()
    return VideoBytes(path.name, content, zlib.crc32(content))


def assert_alike(path: Path, decoder: str = "pyav", frames: int = 40) -> None:
    """The same numbers, the same pixels, or the same words on why there are none."""
    if (why := DECODERS[decoder].why_not()) is not None:
        pytest.skip(why)
    open_ = DECODERS[decoder].open
    try:
        with open_(path) as file:
            pass
    except DecodeError as error:
        with pytest.raises(DecodeError, match=f"^{re.escape(error.reason)}$"):
            open_(in_memory(path))
        return
    with open_(path) as file, open_(in_memory(path)) as memory:
        assert memory.frame_count == file.frame_count
        assert memory.numbered_by_decoding == file.numbered_by_decoding
        if isinstance(file, PyAVReader) and isinstance(memory, PyAVReader):
            assert memory.key_frames == file.key_frames
            assert memory.times == file.times
            assert memory.container_format == file.container_format
        step = max(1, file.frame_count // frames)
        for ids in ([file.frame_count - 1, 0], range(0, file.frame_count, step)):
            np.testing.assert_array_equal(memory.read(ids), file.read(ids))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file(kind: str, tmp_path: Path) -> None:
    assert_alike(KINDS[kind](tmp_path))


@pytest.mark.parametrize("decoder", DECODERS)
def test_every_decoder(decoder: str, tmp_path: Path) -> None:
    assert_alike(write_video(tmp_path / "plain.mp4"), decoder)
    assert_alike(write_video(tmp_path / "plain.avi", codec="mpeg4", options={"g": "12"}), decoder)


@needs_clips
@pytest.mark.parametrize("decoder", DECODERS)
def test_real_clips(decoder: str) -> None:
    for clip in CLIPS:
        assert_alike(clip, decoder, frames=3)


@pytest.mark.parametrize("content", [b"", b"no video", b"\0" * 4096, b"#EXTM3U\n/etc/passwd\n"])
def test_what_is_no_video(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    assert_alike(path)


def test_a_video_that_is_cut_off(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.mp4").read_bytes()
    for share in (0.3, 0.9, 0.999):
        path = tmp_path / "cut.mp4"
        path.write_bytes(whole[: int(len(whole) * share)])
        assert_alike(path)


def test_the_ending_counts_where_the_bytes_say_too_little(tmp_path: Path) -> None:
    """Raw MPEG-4 is known by its name alone; FFmpeg is given that of the bytes."""
    path = write_video(tmp_path / "raw.m4v", codec="mpeg4", options={"g": "12"})
    assert_alike(path)
