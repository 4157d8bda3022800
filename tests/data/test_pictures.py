"""Pictures of frame folders, as OpenCV reads them for the official code; what is refused."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from tests.support.videos import numbered_frame
from videomae_fast.data import DecodeError, FolderReader
from videomae_fast.data.decoders.pictures import read_picture

PLAIN = numbered_frame(0b1011)
# What shows a stored picture upright, by the number in EXIF.
UPRIGHT = {
    1: PLAIN,
    2: PLAIN[:, ::-1],
    3: PLAIN[::-1, ::-1],
    4: PLAIN[::-1],
    5: PLAIN.transpose(1, 0, 2),
    6: np.rot90(PLAIN, -1),
    7: np.rot90(PLAIN, -1)[:, ::-1][::-1, ::-1],
    8: np.rot90(PLAIN, 1),
}


@pytest.mark.parametrize("number", UPRIGHT)
@pytest.mark.parametrize("suffix", ["png", "tiff", "webp", "jpg"])
def test_the_orientation_in_exif_is_applied(tmp_path: Path, number: int, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = number
    path = tmp_path / f"1.{suffix}"
    image = Image.fromarray(PLAIN)
    image.save(path, exif=exif, **({"lossless": True} if suffix == "webp" else {}))
    found = read_picture(path)
    if suffix == "jpg":
        assert found.shape == UPRIGHT[number].shape
        assert np.abs(found.astype(int) - UPRIGHT[number]).mean() < 3
    else:
        np.testing.assert_array_equal(found, UPRIGHT[number])


def test_exif_that_says_nothing(tmp_path: Path) -> None:
    for number, exif in enumerate((b"Exif\0\0damaged", b"Exif\0\0II*\0\x08\0\0\0\xff\xff")):
        path = tmp_path / f"{number}.png"
        Image.fromarray(PLAIN).save(path, exif=exif)
        np.testing.assert_array_equal(read_picture(path), PLAIN)


@pytest.mark.parametrize("suffix", ["png", "tiff", "pgm"])
def test_of_16_bits_the_upper_8_are_taken(tmp_path: Path, suffix: str) -> None:
    stored = np.random.default_rng(0).integers(0, 65536, (6, 5), dtype=np.uint16)
    Image.fromarray(stored).save(tmp_path / f"1.{suffix}")
    found = read_picture(tmp_path / f"1.{suffix}")
    np.testing.assert_array_equal(found, np.repeat((stored >> 8)[..., None], 3, axis=-1))


def test_ten_bits_are_scaled(tmp_path: Path) -> None:
    (tmp_path / "1.pgm").write_bytes(b"P5 3 1 1023\n" + bytes([0, 0, 2, 0, 3, 255]))
    assert read_picture(tmp_path / "1.pgm")[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize(
    ("dtype", "words"), [(np.float32, "floating-point numbers"), (np.int32, "I numbers")]
)
def test_other_numbers_are_refused(tmp_path: Path, dtype: type, words: str) -> None:
    Image.fromarray(np.full((4, 4), 7, dtype)).save(tmp_path / "1.tiff")
    with pytest.raises(DecodeError, match=f"holds {words}: convert it to 8 or 16 bits"):
        read_picture(tmp_path / "1.tiff")


def test_grey_palette_and_transparent_pictures(tmp_path: Path) -> None:
    image = Image.fromarray(PLAIN)
    for mode in ("1", "L", "LA", "P", "RGBA"):
        image.convert(mode).save(tmp_path / f"{mode}.png")
        found = read_picture(tmp_path / f"{mode}.png")
        np.testing.assert_array_equal(found, np.asarray(image.convert(mode).convert("RGB")))


def test_no_picture_starts_another_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PostScript under another name: Pillow would run Ghostscript."""
    marker = tmp_path / "was run"
    program = tmp_path / "gs"
    program.write_text(f"#!{sys.executable}\nopen({str(marker)!r}, 'w')\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    content = io.BytesIO()
    Image.fromarray(PLAIN).save(content, "EPS")
    (tmp_path / "img_00001.jpg").write_bytes(content.getvalue())
    with pytest.raises(DecodeError, match=r"image img_00001\.jpg can't be decoded: cannot"):
        FolderReader(tmp_path, 1, 1).read([0])
    assert not marker.exists()


@pytest.mark.parametrize("format", ["ICO", "TGA", "SGI"])
def test_formats_that_no_frames_are_stored_in(tmp_path: Path, format: str) -> None:
    Image.fromarray(PLAIN).save(tmp_path / "1.jpg", format)
    with pytest.raises(DecodeError, match="can't be decoded: cannot identify"):
        read_picture(tmp_path / "1.jpg")


def test_a_pipe_is_no_picture(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "img_00001.jpg")
    with pytest.raises(DecodeError, match=r"image img_00001\.jpg is no regular file"):
        FolderReader(tmp_path, 1, 1).read([0])


def test_too_many_pixels_are_refused_before_they_are_decoded(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    Image.new("1", (13_000, 13_000)).save(tmp_path / "1.png")
    with pytest.raises(DecodeError, match=r"has 13000 x 13000 pixels, and more than 36,000,000"):
        read_picture(tmp_path / "1.png")
    Image.new("1", (20_000, 20_000)).save(tmp_path / "1.png")
    with pytest.raises(DecodeError, match="can't be decoded: DecompressionBombError"):
        read_picture(tmp_path / "1.png")
    assert not recwarn.list


def test_paths_that_can_not_be() -> None:
    with pytest.raises(DecodeError, match="null byte"):
        read_picture(Path("a\0b.png"))
