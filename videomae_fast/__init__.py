"""VideoMAE and VideoMAE V2 pre-training, fast: the official function with far less work."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    __version__: str
    from videomae_fast.interop.acceleration import accelerate
    from videomae_fast.masks import Grid, Masks, MaskSpec
    from videomae_fast.models.classifier import VideoClassifier
    from videomae_fast.models.config import MAEConfig
    from videomae_fast.models.detector import ActionDetector
    from videomae_fast.models.losses import masked_pixel_loss
    from videomae_fast.models.masked_autoencoder import MaskedAutoencoder

__all__ = [
    "ActionDetector",
    "Grid",
    "MAEConfig",
    "MaskSpec",
    "MaskedAutoencoder",
    "Masks",
    "VideoClassifier",
    "accelerate",
    "masked_pixel_loss",
]

_HOME = {
    "ActionDetector": "videomae_fast.models.detector",
    "Grid": "videomae_fast.masks",
    "MAEConfig": "videomae_fast.models.config",
    "MaskSpec": "videomae_fast.masks",
    "MaskedAutoencoder": "videomae_fast.models.masked_autoencoder",
    "Masks": "videomae_fast.masks",
    "VideoClassifier": "videomae_fast.models.classifier",
    "accelerate": "videomae_fast.interop.acceleration",
    "masked_pixel_loss": "videomae_fast.models.losses",
}


def __getattr__(name: str) -> object:
    """Imports torch only when a name is used, so that ``videomae-fast --help`` is quick."""
    if name == "__version__":
        return _version()
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _version() -> str:
    """The installed distribution's version, else that of the source tree that this file lies in."""
    from importlib import metadata

    name = "videomae-fast"
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        import tomllib
        from pathlib import Path

        try:
            text = (Path(__file__).resolve().parent.parent / "pyproject.toml").read_text("utf-8")
            project = tomllib.loads(text)["project"]
        except (OSError, ValueError, KeyError):
            project = {}
        return str(project["version"]) if project.get("name") == name else "0+unknown"


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__, "__version__"])
