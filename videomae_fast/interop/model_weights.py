"""Weights of a model with all that is needed to build it, whichever layout they came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

import torch
from torch import Tensor, nn

from videomae_fast.errors import WeightsError
from videomae_fast.interop.parts import Tally, tally
from videomae_fast.interop.weights import check_fits, load_into, named
from videomae_fast.models.classifier import VideoClassifier
from videomae_fast.models.config import MAEConfig
from videomae_fast.models.masked_autoencoder import MaskedAutoencoder

Kind = Literal["pre-training", "classifier", "encoder"]
Layout = Literal["official", "ours", "hugging-face"]

OFFICIAL_EPS: Final = 1e-6


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
    """Where weights come from: a name for messages, the layout, and what the source held."""

    name: str
    layout: Layout
    tally: Tally


@dataclass(frozen=True)
class ModelWeights:
    """A state dict that fits its config, key by key; the constructor checks that.

    Attributes:
        kind: "pre-training" (encoder and decoder), "classifier", or "encoder" (pre-training
            without the decoder).
        config: of the model; a classifier does not use its decoder part.
        state: tensors by their official keys, which are those of our models.
        origin: where they come from.
        options: other arguments of MaskedAutoencoder.
        labels: names of the classes, where they are known.
        changes: what became of the source's weights on the way.

    Raises:
        WeightsError: tensors that are missing, unused, of another shape or not of floats.
    """

    kind: Kind
    config: MAEConfig
    state: Mapping[str, Tensor]
    origin: Origin
    options: Mapping[str, Any] = field(default_factory=dict)
    labels: tuple[str, ...] | None = None
    changes: tuple[Change, ...] = ()

    def __post_init__(self) -> None:
        with torch.device("meta"):
            model = self._empty()
        check_fits(model, self.state, origin=f"{self.origin.name}: its weights")
        odd = sorted(key for key, value in self.state.items() if not value.is_floating_point())
        if odd:
            raise WeightsError(f"{self.origin.name}: not floating-point: {named(odd)}")
        if self.labels is not None and len(self.labels) != self.classes:
            raise WeightsError(
                f"{self.origin.name}: {len(self.labels)} class names for {self.classes} classes"
            )

    @property
    def classes(self) -> int:
        """Rows of a classifier's head; 0 where there is none."""
        head = self.state.get("head.weight")
        return 0 if head is None or head.ndim != 2 else head.shape[0]

    def model(self) -> MaskedAutoencoder | VideoClassifier:
        """The model on the CPU, in evaluation mode, in fp32.

        Raises:
            WeightsError: it is only an encoder.
        """
        model = self._empty()
        if isinstance(model, _EncoderOnly):
            raise WeightsError(
                f"{self.origin.name}: holds an encoder without a decoder and without a head; "
                "make a classifier of it (to_classifier)"
            )
        load_into(model, self.state, origin=f"{self.origin.name}: its weights")
        return model.eval()

    def with_changes(self, *changes: Change, **values: Any) -> ModelWeights:
        """A copy with other values, and what changed told."""
        return replace(self, changes=(*self.changes, *changes), **values)

    def _empty(self) -> MaskedAutoencoder | VideoClassifier | _EncoderOnly:
        try:
            if self.kind == "pre-training":
                return MaskedAutoencoder(self.config, **self.options)
            if self.kind == "classifier":
                return VideoClassifier(self.config, max(1, self.classes))
            return _EncoderOnly(self.config, norm="encoder.norm.weight" in self.state)
        except TypeError as error:
            raise WeightsError(f"{self.origin.name}: unknown model option ({error})") from error


class _EncoderOnly(nn.Module):
    """What is left of a masked autoencoder without its decoder.

    Hugging Face's VideoMAEModel has no `encoder.norm` where it is pooled by the mean.
    """

    def __init__(self, config: MAEConfig, *, norm: bool) -> None:
        super().__init__()
        self.encoder = MaskedAutoencoder(config).encoder
        if not norm:
            del self.encoder.norm


def has_official_eps(config: MAEConfig) -> bool:
    return config.norm_eps == config.final_norm_eps == OFFICIAL_EPS


def with_official_eps(weights: ModelWeights) -> ModelWeights:
    """The same weights, computing with the official code's epsilon of LayerNorm, 1e-6.

    This changes the function: a normalised row of variance v by a factor of about
    1 + (old - new) / (2 v).
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
