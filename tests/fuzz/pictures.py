"""Damaged pictures: each is read as Pillow decodes it, or refused in a sentence.

A finding is an error that is no DecodeError, a program that was started, or pixels that differ from
those of a plain decode turned by hand.
"""

from __future__ import annotations

import io
import random
import subprocess
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from tests.support.videos import numbered_frame
from videomae_fast.data.decoders import FolderReader, Frames
from videomae_fast.data.errors import DecodeError

FULL: Final = 2000
_NAME: Final = "img_{:05}.jpg"  # whatever is in it

# What undoes the orientation in EXIF.
_TURNS: Final[dict[int, Image.Transpose]] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def run(count: int, seed: int, folder: Path) -> Iterator[str]:
    """Damages ``count`` pictures; yields a line for each finding."""
    sources = make_sources()
    for number in range(count):
        draw = random.Random(f"{seed} {number}")
        name, content = draw.choice(sources)
        path = folder / _NAME.format(number + 1)
        path.write_bytes(_damaged(draw, content))
        finding = check(path, number + 1)
        path.unlink()
        if finding is not None:
            yield f"{name} --seed {seed} case {number}: {finding}"


def check(path: Path, number: int) -> str | None:
    """What is wrong with how the picture is read, or None."""
    started = []
    usual = subprocess.Popen.__init__
    subprocess.Popen.__init__ = lambda *a, **k: started.append(a)  # type: ignore[method-assign]
    try:
        found = FolderReader(path.parent, number, 1, _NAME).read([0])[0]
    except DecodeError:
        return None
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    finally:
        subprocess.Popen.__init__ = usual  # type: ignore[method-assign]
        if started:
            return f"started {started[0]}"  # noqa: B012
    expected = _plain(path)
    if expected is None or found.shape != expected.shape or (found != expected).any():
        return "other pixels than those of a plain decode"
    return None


def _plain(path: Path) -> Frames | None:
    """The picture by Pillow alone, for the modes that it converts as it should."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(path) as image:
            image.load()
            try:
                turn = _TURNS.get(image.getexif().get(0x0112, 1))
            except Exception:
                turn = None
            if image.mode.startswith("I"):
                grey = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
                upright: Image.Image = grey.convert("RGB")
            else:
                upright = image.convert("RGB")
            return np.asarray(upright if turn is None else upright.transpose(turn))


def make_sources() -> list[tuple[str, bytes]]:
    """Sound pictures of all formats that are read, and of some that are not."""
    plain = Image.fromarray(numbered_frame(77))
    exif = Image.Exif()
    exif[0x0112] = 6
    grey = Image.fromarray(np.arange(60 * 50, dtype=np.uint16).reshape(60, 50) * 21)
    real = Image.fromarray(np.random.default_rng(0).random((9, 9), dtype=np.float32))
    kinds: list[tuple[str, Image.Image, dict[str, Any]]] = [
        ("JPEG", plain, {"exif": exif}),
        ("JPEG", plain, {"progressive": True}),
        ("JPEG", plain.convert("CMYK"), {}),
        ("PNG", plain, {"exif": exif}),
        ("PNG", plain.convert("P"), {}),
        ("PNG", plain.convert("LA"), {}),
        ("PNG", grey, {}),
        ("BMP", plain, {}),
        ("PPM", plain, {}),
        ("PPM", grey, {}),
        ("TIFF", plain, {"compression": "tiff_lzw", "exif": exif}),
        ("TIFF", grey, {}),
        ("TIFF", real, {}),
        ("WEBP", plain, {"exif": exif}),
        ("GIF", plain.convert("P"), {}),
        ("JPEG2000", plain, {}),
        ("EPS", plain, {}),
        ("ICO", plain, {}),
        ("TGA", plain, {}),
        ("AVIF", plain, {}),
        ("BLP", plain.convert("P"), {}),
    ]
    found = []
    for format, image, settings in kinds:
        content = io.BytesIO()
        image.save(content, format, **settings)
        found.append((format, content.getvalue()))
    return found


def _damaged(draw: random.Random, content: bytes) -> bytes:
    return draw.choice(DAMAGES)(draw, content)


def _flip(draw: random.Random, content: bytes) -> bytes:
    changed = bytearray(content)
    # Headers are short, and where the formats differ.
    end = draw.choice((len(changed), min(64, len(changed))))
    for _ in range(draw.choice((1, 1, 2, 5, 20))):
        changed[draw.randrange(end)] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _overwrite(draw: random.Random, content: bytes) -> bytes:
    begin = draw.randrange(len(content))
    length = min(draw.choice((1, 2, 4, 40)), len(content) - begin)
    new = draw.choice((bytes(length), b"\xff" * length, draw.randbytes(length)))
    return content[:begin] + new + content[begin + length :]


def _truncate(draw: random.Random, content: bytes) -> bytes:
    return content[: draw.randrange(len(content))]


def _cut_out(draw: random.Random, content: bytes) -> bytes:
    begin = draw.randrange(len(content))
    return content[:begin] + content[begin + draw.choice((1, 4, 100)) :]


DAMAGES: Final[tuple[Callable[[random.Random, bytes], bytes], ...]] = (
    _flip,
    _flip,
    _overwrite,
    _truncate,
    _cut_out,
)
