"""One video through a pre-trained model into files, for `reconstruct` and the demo."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from videomae_fast.data import read_clip
from videomae_fast.errors import VideoMAEFastError
from videomae_fast.masks import MaskSpec
from videomae_fast.models.masked_autoencoder import MaskedAutoencoder
from videomae_fast.pictures.reconstruction import reconstruct
from videomae_fast.pictures.rendering import picture, save_animation

SHOWN_FPS = 6
"""Frames per second of the animation: slow enough to look at."""


@dataclass(frozen=True)
class Shown:
    """The files that were written, and what the JSON one says."""

    picture: Path
    animation: Path
    numbers: dict[str, object]


def show_reconstruction(
    model: MaskedAutoencoder,
    video: Path,
    output: Path,
    *,
    spec: MaskSpec,
    seed: int = 0,
    start: int | None = None,
    stride: int = 4,
    decoder: str = "pyav",
    name: str | None = None,
    note: str = "",
    settings: Mapping[str, object] | None = None,
    before: MaskedAutoencoder | None = None,
) -> Shown:
    """Writes <output>/<name>.png, .gif and .json.

    Args:
        start: first frame of the clip; None takes it from the middle of the video.
        name: of the files; the video's without its ending by default.
        note: added to the line under the picture's title.
        settings: what else the JSON file shall say.
        before: the model before it was trained, whose reconstruction is shown too.

    Raises:
        VideoMAEFastError: the video can't be read, or the mask does not fit.
    """
    config = model.config
    clip = torch.as_tensor(
        read_clip(
            video,
            frames=config.frames,
            stride=stride,
            start=start,
            image_size=config.image_size,
            decoder=decoder,
        )
    )
    result = reconstruct(model, clip, spec, seed=seed)
    earlier = None if before is None else reconstruct(before, clip, spec, seed=seed)
    numbers: dict[str, object] = {
        "video": video.name,
        "encoder_mask": spec.encoder,
        "mask_ratio": spec.encoder_ratio,
        "hidden_share": round(result.hidden_share, 4),
        "loss": round(result.loss, 6),
        "seed": seed,
        "start": start,
        "stride": stride,
        **({} if earlier is None else {"loss_before": round(earlier.loss, 6)}),
        **(settings or {}),
    }
    stem = name or video.stem
    files = {ending: output / f"{stem}.{ending}" for ending in ("png", "gif", "json")}
    told = f"{spec.encoder} mask, {result.hidden_share:.0%} of the cubes hidden"
    told += f" · loss {result.loss:.3f} on them" + (f" · {note}" if note else "")
    try:
        output.mkdir(parents=True, exist_ok=True)
        picture(result, title=video.name, note=told, before=earlier).save(files["png"])
        save_animation(files["gif"], result, frame_seconds=1 / SHOWN_FPS, before=earlier)
        files["json"].write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise VideoMAEFastError(f"can't write into {output}: {error}") from error
    return Shown(files["png"], files["gif"], numbers)
