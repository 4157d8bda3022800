"""Model sizes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from videomae_fast.masks import Grid

if TYPE_CHECKING:
    from videomae_fast.recipes import schema

Size = Literal["small", "base", "large", "huge", "giant"]


@dataclass(frozen=True)
class MAEConfig:
    """The shape of a masked autoencoder; the classifier uses its encoder part.

    Attributes:
        image_size: pixels, one side or (height, width).
        patch_size: side of a token's cube, in pixels.
        tubelet_size: length of a token's cube, in frames.
        frames: frames per clip.
        width: values of a token in the encoder.
        depth: blocks of the encoder.
        heads: attention heads of the encoder.
        mlp_ratio: hidden width of an MLP is ``int(width * mlp_ratio)``.
        decoder_width: values of a token in the decoder.
        decoder_depth: blocks of the decoder.
        decoder_heads: attention heads of the decoder.
        learned_positions: the encoder's positions are a parameter instead of the fixed sinusoid.
        layer_scale: LayerScale's initial value; 0 leaves LayerScale out.
        norm_eps: LayerNorm's epsilon in all blocks and after the encoder.
        final_norm_eps: that of the decoder's `norm` and of the classifier's `fc_norm`. The official
            code has 1e-6 everywhere; weights of Hugging Face's models come with others.
        encoder_norm: LayerNorm after the encoder, as the official code has it. Hugging Face's
            models for pre-training leave it out by default (``use_mean_pooling``).
        decoder_mlp_ratio: `mlp_ratio` of the decoder where that has its own; None: the same.

    Raises:
        ValueError: a size that does not divide, or is not positive.
    """

    image_size: int | tuple[int, int] = 224
    patch_size: int = 16
    tubelet_size: int = 2
    frames: int = 16
    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp_ratio: float = 4.0
    decoder_width: int = 384
    decoder_depth: int = 4
    decoder_heads: int = 6
    learned_positions: bool = False
    layer_scale: float = 0.0
    norm_eps: float = 1e-6
    final_norm_eps: float = 1e-6
    encoder_norm: bool = True
    decoder_mlp_ratio: float | None = None

    def __post_init__(self) -> None:
        for name in ("patch_size", "tubelet_size", "width", "depth", "heads", "decoder_width",
                     "decoder_depth", "decoder_heads", "mlp_ratio", "norm_eps",
                     "final_norm_eps", "decoder_mlp_ratio"):  # fmt: skip
            if getattr(self, name) is None:
                continue
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        for name, hidden in (("width", self.hidden), ("decoder_width", self.decoder_hidden)):
            if hidden < 1:
                raise ValueError(
                    f"MLPs have no hidden values: {name} {getattr(self, name)} times their ratio "
                    "is below 1; give a larger mlp_ratio (or decoder_mlp_ratio)"
                )
        for width, heads in (("width", "heads"), ("decoder_width", "decoder_heads")):
            if getattr(self, width) % getattr(self, heads):
                raise ValueError(
                    f"{width} {getattr(self, width)} is not a multiple of {heads} "
                    f"{getattr(self, heads)}"
                )
        if not 0 <= self.layer_scale < math.inf:
            raise ValueError(f"layer_scale must be 0 (off) or positive, got {self.layer_scale}")
        _ = self.grid  # raises where a size does not divide

    @staticmethod
    def from_size(size: Size, **overrides: Any) -> MAEConfig:
        """The configuration of an official size, ViT-S to ViT-g; any field may be overridden.

        Raises:
            ValueError: unknown size.
            TypeError: unknown field.

        Source: models/modeling_pretrain.py of the official V2 code; decoder depth 4 as in all of
        its recipes.
        """
        if size not in _SIZES:
            raise ValueError(f"unknown model size {size!r}; known are {', '.join(_SIZES)}")
        return MAEConfig(**{**_SIZES[size], **overrides})

    @property
    def grid(self) -> Grid:
        """The token grid of clips of this shape."""
        return Grid.of(self.frames, self.image_size, self.tubelet_size, self.patch_size)

    @property
    def hidden(self) -> int:
        """Hidden width of the encoder's MLPs."""
        return int(self.width * self.mlp_ratio)

    @property
    def decoder_hidden(self) -> int:
        """Hidden width of the decoder's MLPs."""
        ratio = self.mlp_ratio if self.decoder_mlp_ratio is None else self.decoder_mlp_ratio
        return int(self.decoder_width * ratio)

    @property
    def patch_values(self) -> int:
        """Values of one token's cube: 3 · tubelet_size · patch_size²."""
        return 3 * self.tubelet_size * self.patch_size**2

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> MAEConfig:
        """The inverse of :meth:`to_dict`.

        Raises:
            ValueError: a key that is no field, or a value of another type.
        """
        unknown = sorted(set(values) - {field.name for field in fields(MAEConfig)})
        if unknown:
            raise ValueError(f"unknown model fields: {', '.join(unknown)}")
        size = values.get("image_size")
        if isinstance(size, list):  # JSON has no tuples
            values = {**values, "image_size": tuple(size)}
        for name, value in values.items():
            if not _is(value, _TYPES[name]):
                raise ValueError(f"{name} is of type {type(value).__name__}, not {_TYPES[name]}")
        return MAEConfig(**values)


def mae_config(model: schema.Encoder) -> MAEConfig:
    """The shape that a configuration describes: its size's, with what it sets.

    Raises:
        ValueError: sizes that don't divide.
    """
    names = {one.name for one in fields(MAEConfig)} & {one.name for one in fields(model)}
    values = {name: getattr(model, name) for name in names}
    return MAEConfig.from_size(
        model.size, **{name: value for name, value in values.items() if value is not None}
    )


def _is(value: Any, kind: str) -> bool:
    """Whether a value has a type as annotations spell it. True and False are no numbers."""
    if kind == "bool":
        return type(value) is bool
    if type(value) is float:
        return "float" in kind
    if type(value) is tuple:
        return "tuple" in kind and len(value) == 2 and all(type(side) is int for side in value)
    return type(value) is int or (value is None and "None" in kind)


_TYPES = {field.name: str(field.type) for field in fields(MAEConfig)}
_SIZES: dict[str, dict[str, Any]] = {
    "small": {"width": 384, "depth": 12, "heads": 6, "decoder_width": 192, "decoder_heads": 3},
    "base": {"width": 768, "depth": 12, "heads": 12, "decoder_width": 384, "decoder_heads": 6},
    "large": {"width": 1024, "depth": 24, "heads": 16, "decoder_width": 512, "decoder_heads": 8},
    "huge": {"width": 1280, "depth": 32, "heads": 16, "decoder_width": 512, "decoder_heads": 8},
    "giant": {
        "width": 1408,
        "depth": 40,
        "heads": 16,
        "mlp_ratio": 48 / 11,
        "patch_size": 14,
        "decoder_width": 512,
        "decoder_heads": 8,
    },
}
SIZES = tuple(_SIZES)
