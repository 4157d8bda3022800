"""The config of a model, read off the shapes of its tensors, and what they don't say."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, get_args

from torch import Tensor

from videomae_fast.errors import WeightsError
from videomae_fast.interop.weights.model_weights import HEADED, Kind
from videomae_fast.models.config import MAEConfig, Size

_PATCHES: Final = "patch_embed.proj.weight"


@dataclass(frozen=True)
class SourceHints:
    """What tensors don't say about a model, where somebody else did. None: not told.

    Attributes:
        heads: attention heads of the encoder; official widths have official heads.
        decoder_heads: attention heads of the decoder, likewise.
        frames: of a clip; 16 if nobody says so.
        image_size: of a clip in pixels, one side or (height, width); 224 if nobody says so.
        detector: the source is action detection's model, whose tensors have the names of a
            classifier that takes the first token.
    """

    heads: int | None = None
    decoder_heads: int | None = None
    frames: int | None = None
    image_size: int | tuple[int, int] | None = None
    detector: bool = False

    def check(self, config: MAEConfig, origin: str) -> None:
        """Compares with the config of a source that says it.

        Raises:
            WeightsError: the source says something else.
        """
        if self.detector:
            raise WeightsError(f"{origin}: says what it is, no detector; leave --detector out")
        for name in ("heads", "decoder_heads", "frames", "image_size"):
            value, own = getattr(self, name), getattr(config, name)
            if value is not None and value != own:
                raise WeightsError(
                    f"{origin}: says {name} {own}, not {value}; leave --"
                    f"{name.replace('_', '-')} out"
                )


def infer_config(
    state: Mapping[str, Tensor], kind: Kind, hints: SourceHints, origin: str
) -> MAEConfig:
    """The config of official weights from their shapes, and from hints.

    Args:
        state: tensors by official names.
        kind: what they are.
        hints: what shapes don't say.
        origin: the source's name, for messages.

    Returns:
        The config. Its decoder is the official one of this width where there is none.

    Raises:
        WeightsError: a tensor that is needed is missing or has an odd shape, or the number of
            heads is neither told nor known for the width.
    """
    prefix = "" if kind in HEADED else "encoder."
    patches = _shape(state, prefix + _PATCHES, 5, origin)
    width, channels, tubelet, height, side = patches
    if channels != 3 or height != side:
        raise WeightsError(
            f"{origin}: {prefix}{_PATCHES} has shape {list(patches)}, not "
            "[width, 3, tubelet, patch, patch]"
        )
    hidden = _shape(state, f"{prefix}blocks.0.mlp.fc1.weight", 2, origin)[0]
    values: dict[str, Any] = {
        "image_size": 224 if hints.image_size is None else hints.image_size,
        "patch_size": side,
        "tubelet_size": tubelet,
        "frames": 16 if hints.frames is None else hints.frames,
        "width": width,
        "depth": _depth(state, f"{prefix}blocks.", origin),
        "heads": _heads(width, hints.heads, "heads", origin),
        "learned_positions": f"{prefix}pos_embed" in state,
        # The initial value is not in the weights, which replace it: only "there or not" counts.
        "layer_scale": 1.0 if f"{prefix}blocks.0.gamma_1" in state else 0.0,
    }
    narrow_mlp = None
    if kind == "encoder":
        values["encoder_norm"] = f"{prefix}norm.weight" in state
    if kind == "pre-training":
        narrow = _shape(state, "encoder_to_decoder.weight", 2, origin)[0]
        narrow_mlp = narrow, _shape(state, "decoder.blocks.0.mlp.fc1.weight", 2, origin)[0]
        values |= {
            "decoder_width": narrow,
            "decoder_depth": _depth(state, "decoder.blocks.", origin),
            "decoder_heads": _heads(narrow, hints.decoder_heads, "decoder_heads", origin),
        }
    elif hints.decoder_heads is not None:
        raise WeightsError(f"{origin}: has no decoder; leave --decoder-heads out")
    else:
        values |= decoder_of(width)
    values |= mlp_ratios((width, hidden), narrow_mlp, origin)
    config = make_config(values, origin)
    if config.learned_positions:
        tokens = _shape(state, f"{prefix}pos_embed", 3, origin)[1]
        if tokens != config.grid.tokens:
            raise WeightsError(
                f"{origin}: its learned positions are for {tokens} tokens; {config.frames} frames "
                f"of {config.image_size} pixels have {config.grid.tokens}: give --frames and "
                "--image-size"
            )
    return config


def make_config(values: Mapping[str, Any], origin: str) -> MAEConfig:
    """MAEConfig, its complaints with the origin's name.

    Args:
        values: arguments of MAEConfig.
        origin: the source's name.

    Returns:
        The config.

    Raises:
        WeightsError: no model has these sizes.
    """
    try:
        return MAEConfig(**values)
    except ValueError as error:
        raise WeightsError(f"{origin}: {error}") from error


def decoder_of(width: int) -> dict[str, int]:
    """The decoder that the official code gives an encoder of a width, ViT-B's for others.

    For weights without a decoder: their config describes one that is not there.

    Args:
        width: of the encoder.

    Returns:
        Arguments of MAEConfig.
    """
    config = next((size for size in _official_sizes() if size.width == width), MAEConfig())
    return {
        name: getattr(config, name) for name in ("decoder_width", "decoder_depth", "decoder_heads")
    }


def mlp_ratios(
    encoder: tuple[int, int], decoder: tuple[int, int] | None, origin: str
) -> dict[str, float]:
    """The config's `mlp_ratio`, and `decoder_mlp_ratio` where the decoder has its own.

    Args:
        encoder, decoder: width and hidden width of its MLPs. None: there is no decoder.

    Raises:
        WeightsError: a hidden width that no ratio gives.
    """
    pairs = [encoder] if decoder is None else [encoder, decoder]
    both = mlp_ratio(pairs)
    if both is not None:
        return {"mlp_ratio": both}
    found = [mlp_ratio([pair]) for pair in pairs]
    names = ("mlp_ratio", "decoder_mlp_ratio")
    known = {name: ratio for name, ratio in zip(names, found, strict=False) if ratio is not None}
    if len(known) < len(pairs):
        widths = " and ".join(f"{hidden} of {width}" for width, hidden in pairs)
        raise WeightsError(f"{origin}: no MLP ratio gives hidden widths {widths}")
    return known


def mlp_ratio(mlps: Sequence[tuple[int, int]]) -> float | None:
    """The ratio r with ``int(width * r) == hidden`` for each (width, hidden); None: there is none.

    Each pair leaves an interval, as `int` cuts off: hidden 40 of width 10 may be 4 or 4.05, and
    405 of 100 in the decoder decides.
    """
    ratio = max(hidden / width for width, hidden in mlps)
    for candidate in (ratio, math.nextafter(ratio, math.inf)):
        if all(int(width * candidate) == hidden for width, hidden in mlps):
            return candidate
    return None


def _official_sizes() -> list[MAEConfig]:
    return [MAEConfig.from_size(size) for size in get_args(Size)]


def _heads(width: int, known_heads: int | None, name: str, origin: str) -> int:
    if known_heads is not None:
        return known_heads
    stem = name.removesuffix("heads")
    known = {getattr(size, f"{stem}width"): getattr(size, name) for size in _official_sizes()}
    if width not in known:
        raise WeightsError(
            f"{origin}: tensors don't say the number of heads, and {width} is no official width "
            f"({', '.join(map(str, sorted(known)))}); give --{name.replace('_', '-')} "
            "(a command without it takes what videomae-fast convert wrote with it)"
        )
    heads: int = known[width]
    return heads


def _depth(state: Mapping[str, Tensor], prefix: str, origin: str) -> int:
    matched = (re.match(re.escape(prefix) + r"(\d+)\.", key) for key in state)
    indices = {int(match[1]) for match in matched if match}
    if indices != set(range(len(indices))):
        gap = next(i for i in range(len(indices)) if i not in indices)
        raise WeightsError(f"{origin}: missing: {prefix}{gap}, of {len(indices)} blocks")
    return len(indices)


def _shape(state: Mapping[str, Tensor], key: str, dims: int, origin: str) -> tuple[int, ...]:
    if key not in state:
        raise WeightsError(f"{origin}: missing: {key}")
    shape = tuple(state[key].shape)
    if len(shape) != dims or not all(shape):
        raise WeightsError(f"{origin}: {key} has shape {list(shape)}, not {dims} dimensions")
    return shape
