"""One picture file as an upright RGB array, as OpenCV reads it for the official code."""

from __future__ import annotations

import stat
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from videomae_fast.data.decoders.base import Frames, check_size
from videomae_fast.data.decoders.orientation import UPRIGHT, Orientation
from videomae_fast.data.errors import DecodeError

if TYPE_CHECKING:
    from PIL.Image import Image

# Pillow's names of what frames are stored as. It knows others, and runs programs for some.
_FORMATS: Final = ("JPEG", "PNG", "BMP", "PPM", "TIFF", "WEBP", "GIF", "JPEG2000")
_ORIENTATION_TAG: Final = 0x0112
_ORIENTATIONS: Final = {
    2: Orientation(False, True, False),
    3: Orientation(False, True, True),
    4: Orientation(False, False, True),
    5: Orientation(True, False, False),
    6: Orientation(True, True, False),
    7: Orientation(True, True, True),
    8: Orientation(True, False, True),
}
_XMP: Final = ("xmp", "XML:com.adobe.xmp")  # OpenCV looks at EXIF alone
# Pillow reads 16 bits of these as 32, scaled to 65,535.
_STORED_AS_32: Final = ("PPM", "PNG")


def read_picture(path: Path) -> Frames:
    """The first picture of a file.

    The orientation in EXIF is applied. Grey, palette and transparent pictures become RGB
    (transparency is dropped). Of 16 bits the upper 8 are taken.

    Args:
        path: of the file.

    Returns:
        uint8 [H, W, 3], RGB.

    Raises:
        DecodeError: it can't be read; the reason does not name the file.
    """
    import PIL.Image

    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for a writer
            raise DecodeError("is no regular file")
    except FileNotFoundError as error:
        raise DecodeError("is missing") from error
    except (OSError, ValueError) as error:
        raise DecodeError(f"can't be read: {error}") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sizes that are refused, of damaged metadata
            with PIL.Image.open(path, formats=_FORMATS) as image:
                check_size(*image.size)
                image.load()
                turned = _orientation(image)
                return turned.apply(_rgb(image))
    except DecodeError:
        raise
    # What Pillow raises for damaged files depends on the format, and is not documented.
    except Exception as error:
        what = "" if isinstance(error, OSError) else f"{type(error).__name__}: "
        raise DecodeError(f"can't be decoded: {what}{error}") from error


def _rgb(image: Image) -> Frames:
    mode = image.mode
    if mode == "F":
        raise DecodeError("holds floating-point numbers: convert it to 8 or 16 bits per channel")
    if mode.startswith("I;16") or (mode == "I" and image.format in _STORED_AS_32):
        grey = (np.asarray(image) >> 8).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=-1)
    if mode.startswith("I"):
        raise DecodeError(f"holds {mode} numbers: convert it to 8 or 16 bits per channel")
    return np.asarray(image.convert("RGB"))


def _orientation(image: Image) -> Orientation:
    for name in _XMP:
        image.info.pop(name, None)
    try:
        return _ORIENTATIONS.get(image.getexif().get(_ORIENTATION_TAG, 1), UPRIGHT)
    except Exception:  # damaged EXIF says nothing
        return UPRIGHT
