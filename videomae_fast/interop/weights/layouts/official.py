"""The official names, which are those of our models, and what other code puts before them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from torch import Tensor

from videomae_fast.errors import WeightsError
from videomae_fast.interop.weights.check import named
from videomae_fast.interop.weights.model_weights import Kind
from videomae_fast.interop.weights.state_dicts import strip_prefixes

_PATCHES: Final = "patch_embed.proj.weight"
_WRAPPERS: Final = ("_orig_mod.", "module.", "model.", "backbone.")


def unwrapped(state: Mapping[str, Tensor], origin: str) -> dict[str, Tensor]:
    """The state dict with the names that the model itself gives.

    Cuts what other code puts before them: `model.` (a Lightning module's), `backbone.` (a
    detector's, or a classifier's whose head is elsewhere), and `encoder.` before a
    classifier's names.

    Args:
        state: tensors of one model.
        origin: the source's name, for messages.

    Returns:
        The same tensors.

    Raises:
        WeightsError: two names become the same.
    """
    state = strip_prefixes(state, _WRAPPERS, origin)
    if "encoder.fc_norm.weight" in state:  # in pre-training the encoder has a norm of another name
        return strip_prefixes(state, ("encoder.",), origin)
    return state


_NO_DETECTOR: Final = (
    "holds no detector; leave --detector out (convert), or train one from it (detect train --init)"
)


def kind_of(state: Mapping[str, Tensor], origin: str, *, detector: bool = False) -> Kind:
    """What the official keys hold.

    Args:
        state: tensors by official names.
        origin: the source's name, for messages.
        detector: what looks like a classifier of the first token is action detection's model.

    Raises:
        WeightsError: no VideoMAE model, or one that takes the first token.
    """
    if f"encoder.{_PATCHES}" in state:
        decoder = ("decoder.", "encoder_to_decoder.", "mask_token")
        if detector:
            raise WeightsError(f"{origin}: {_NO_DETECTOR}")
        return "pre-training" if any(key.startswith(decoder) for key in state) else "encoder"
    if _PATCHES not in state:
        raise WeightsError(
            f"{origin}: no VideoMAE weights: neither official keys (encoder.{_PATCHES} or "
            f"{_PATCHES}) nor Hugging Face's are among {named(sorted(state), 5)}"
        )
    if "norm.weight" in state and "fc_norm.weight" not in state:
        if detector:
            return "detector"
        raise WeightsError(
            f"{origin}: has norm.weight where a classifier of the mean of all tokens has "
            "fc_norm.weight: either action detection's model (say so with --detector), or a "
            "classifier that takes the first token, which the models here don't"
        )
    if detector:
        raise WeightsError(f"{origin}: {_NO_DETECTOR}")
    return "classifier"
