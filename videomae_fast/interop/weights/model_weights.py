"""Weights of a model with all that is needed to build it, whichever layout they came from."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

import torch
from torch import Tensor, nn

from videomae_fast.errors import WeightsError
from videomae_fast.interop.reading.refusal import refused
from videomae_fast.interop.weights.check import check_fits, check_floating, load_into
from videomae_fast.interop.weights.parts import Tally, tally
from videomae_fast.models.classifier import VideoClassifier
from videomae_fast.models.config import MAEConfig
from videomae_fast.models.detector import ActionDetector
from videomae_fast.models.masked_autoencoder import MaskedAutoencoder
from videomae_fast.models.pixels import Pixels

Kind = Literal["pre-training", "classifier", "encoder", "detector"]
Layout = Literal["official", "ours", "hugging-face", "mmaction2"]
HEADED: Final[tuple[Kind, ...]] = ("classifier", "detector")
"""Kinds whose encoder's names have no ``encoder.`` before them."""

OFFICIAL_EPS: Final = 1e-6
_MOST_POSITIONS: Final = 1 << 26
"""Values in a table of positions: 64 frames of 448 pixels have half as many in ViT-g."""


@dataclass(frozen=True)
class Change:
    """What is not the same in the result as in the source, and why.

    Attributes:
        what: "left out", "made new", "differs" (the function changes) or "kept" (worth knowing).
        reason: in words.
        state: the tensors that were left out or made, by their official keys.
    """

    what: Literal["left out", "made new", "differs", "kept"]
    reason: str
    state: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Origin:
    """Where weights come from.

    Attributes:
        name: for messages.
        layout: of the source.
        tally: what the source held, by part of the model.
    """

    name: str
    layout: Layout
    tally: Tally


@dataclass(frozen=True)
class ModelWeights:
    """A state dict that fits its config, key by key; the constructor checks that.

    Attributes:
        kind: "pre-training" (encoder and decoder), "classifier", "encoder" (pre-training without
            the decoder), or "detector" (action detection's model).
        config: of the model; only pre-training uses its decoder part.
        state: tensors by their official keys, which are those of our models.
        origin: where they come from.
        options: other arguments of MaskedAutoencoder, or of a detector (:func:`detector_options`).
        labels: names of the classes, where they are known.
        changes: what became of the source's weights on the way.

    Raises:
        WeightsError: tensors that are missing, unused, of another shape or not of floats.
    """

    kind: Kind
    config: MAEConfig
    state: Mapping[str, Tensor] = field(repr=False)
    origin: Origin
    options: Mapping[str, Any] = field(default_factory=dict)
    labels: tuple[str, ...] | None = None
    changes: tuple[Change, ...] = ()

    def __post_init__(self) -> None:
        name = f"{self.origin.name}: its weights"
        claims = self._claims()
        if claims:
            raise WeightsError(f"{name} do not fit its config: {'; '.join(claims)}")
        odd = "no model has the sizes and options that it says"
        with refused(self.origin.name, odd, "correct them"), torch.device("meta"):
            model = self._empty(_smallest(self.config))
        check_fits(model, self.state, origin=name)
        check_floating(self.state, origin=self.origin.name)
        if self.labels is not None and len(self.labels) != self.classes:
            raise WeightsError(
                f"{self.origin.name}: {len(self.labels)} class names for {self.classes} classes"
            )

    @property
    def classes(self) -> int:
        """Rows of a classifier's head; 0 where there is none."""
        head = self.state.get("head.weight")
        return 0 if head is None or head.ndim != 2 else head.shape[0]

    def model(self) -> MaskedAutoencoder | VideoClassifier | ActionDetector:
        """The model on the CPU, in evaluation mode, in fp32.

        Raises:
            WeightsError: it is an encoder alone.
        """
        if self.kind == "encoder":
            raise WeightsError(
                f"{self.origin.name}: holds an encoder without a decoder and without a head; make "
                "a classifier of it (to_classifier)"
            )
        values = self.config.grid.tokens * max(self.config.width, self.config.decoder_width)
        if values > _MOST_POSITIONS:
            raise WeightsError(
                f"{self.origin.name}: says clips of {self.config.frames} frames of "
                f"{self.config.image_size} pixels, whose table of positions alone has {values:,} "
                "values; correct frames and image size"
            )
        with refused(self.origin.name, "its model can't be built", "see that memory is free"):
            model = self._empty(self.config)
        assert isinstance(model, MaskedAutoencoder | VideoClassifier | ActionDetector)
        load_into(model, self.state, origin=f"{self.origin.name}: its weights")
        return model.eval()

    def _claims(self) -> list[str]:
        """Where the config is larger than the tensors, in what decides how large a model becomes.

        The model is built to compare the rest, and that must not take more than the tensors do.
        """
        config = self.config
        outer = "" if self.kind in HEADED else "encoder."
        sizes = [(f"{outer}patch_embed.proj.weight", 0, config.width)]
        stacks = [(f"{outer}blocks.", config.depth)]
        if self.kind == "pre-training":
            sizes.append(("mask_token", 2, config.decoder_width))
            stacks.append(("decoder.blocks.", config.decoder_depth))
        if config.learned_positions:
            sizes.append((f"{outer}pos_embed", 1, config.grid.tokens))
        found = []
        for key, dim, size in sizes:
            shape = tuple(self.state[key].shape) if key in self.state else None
            if shape is None:
                found.append(f"missing: {key}")
            elif len(shape) <= dim or shape[dim] < size:
                found.append(f"other shape: {key} {list(shape)} (the config says {size})")
        for stack, depth in stacks:
            blocks = {
                key[len(stack) :].split(".")[0] for key in self.state if key.startswith(stack)
            }
            if depth > len(blocks):
                found.append(f"missing: {stack}{len(blocks)}.* (the config says {depth} blocks)")
        return found

    def with_changes(self, *changes: Change, **values: Any) -> ModelWeights:
        """A copy with other values, and what changed told."""
        return replace(self, changes=(*self.changes, *changes), **values)

    def _empty(self, config: MAEConfig) -> nn.Module:
        if self.kind == "pre-training":
            return MaskedAutoencoder(config, **self.options)
        if self.kind == "classifier":
            return VideoClassifier(config, max(1, self.classes))
        if self.kind == "detector":
            return ActionDetector(config, max(1, self.classes), **_arguments(self.options))
        return _EncoderOnly(config)


def _smallest(config: MAEConfig) -> MAEConfig:
    """The config of a clip of one token, where no weights depend on the clip.

    Tables of positions are computed in memory even for a model on the meta device.
    """
    if config.learned_positions:
        return config
    return replace(config, frames=config.tubelet_size, image_size=config.patch_size)


class _EncoderOnly(nn.Module):
    """What is left of a masked autoencoder without its decoder."""

    def __init__(self, config: MAEConfig) -> None:
        super().__init__()
        self.encoder = MaskedAutoencoder(config).encoder


def detector_options(model: ActionDetector) -> dict[str, Any]:
    """What a detector computes with beside its config and weights, as plain values."""
    rois, pixels = model.rois, model.pixels
    return {
        "bins": rois.size,
        "sampling_ratio": rois.sampling_ratio,
        "aligned": rois.aligned,
        "mean": list(pixels.mean),
        "std": list(pixels.std),
    }


def official_options(kind: Kind) -> dict[str, Any]:
    """The options of the official code's models, which its files don't say, as plain values.

    Args:
        kind: of the model.
    """
    if kind == "pre-training":
        return {"normalize_target": True, "ignore_flat_cubes": False}
    if kind != "detector":
        return {}
    given = {n: p.default for n, p in inspect.signature(ActionDetector).parameters.items()}
    pixels = given["pixels"]
    said = {name: given[name] for name in ("bins", "sampling_ratio", "aligned")}
    return {**said, "mean": list(pixels.mean), "std": list(pixels.std)}


def _arguments(options: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a detector out of :func:`detector_options`; the official ones without any."""
    found = dict(options)
    if "mean" in found or "std" in found:
        mean, std = (tuple(map(float, found.pop(name))) for name in ("mean", "std"))
        found["pixels"] = Pixels(mean, std)  # type: ignore[arg-type]
    return found


def has_official_eps(config: MAEConfig) -> bool:
    """Whether a model computes with the official code's epsilons of LayerNorm.

    Args:
        config: of the model.
    """
    return config.norm_eps == config.final_norm_eps == OFFICIAL_EPS


def with_official_eps(weights: ModelWeights) -> ModelWeights:
    """The same weights, computing with the official code's epsilon of LayerNorm, 1e-6.

    This changes the function: a normalised row of variance v by a factor of about
    1 + (old - new) / (2 v).

    Args:
        weights: with any epsilons.

    Returns:
        The weights, with the difference told where there is one.
    """
    config = weights.config
    if has_official_eps(config):
        return weights
    change = Change(
        "differs",
        f"LayerNorm's epsilon was {config.norm_eps:g} in blocks and {config.final_norm_eps:g} "
        f"before the head and is {OFFICIAL_EPS:g}, the official code's: a row of variance v "
        "changes by a factor of about 1 + (old - new) / 2v",
    )
    official = replace(config, norm_eps=OFFICIAL_EPS, final_norm_eps=OFFICIAL_EPS)
    return weights.with_changes(change, config=official)


def origin_of(name: str, layout: Layout, state: Mapping[str, Tensor]) -> Origin:
    """The origin of a source's state dict, with the keys that it has there."""
    return Origin(name, layout, tally(state))
