"""The encoder of weights of any layout, without decoder, for features of frozen models."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from videomae_fast.errors import WeightsError
from videomae_fast.interop.weights.check import check_finite, load_into
from videomae_fast.interop.weights.model_weights import ModelWeights
from videomae_fast.interop.weights.read import read_weights
from videomae_fast.interop.weights.shapes import SourceHints
from videomae_fast.models.classifier import VideoClassifier
from videomae_fast.models.masked_autoencoder import Encoder

_PREFIX = "encoder."


def read_encoder(path: str | Path, hints: SourceHints | None = None) -> VideoClassifier | Encoder:
    """The model whose features are taken, on the CPU, in evaluation mode, in fp32.

    Args:
        path: of weights, as :func:`~videomae_fast.interop.read_weights` takes it.
        hints: what official files don't say.

    Returns:
        A classifier where the weights are one (its last norm is ``fc_norm``), else the encoder of
        pre-training (``encoder.norm``).

    Raises:
        WeightsError: as there; or values that are not finite; or a detector.
    """
    return encoder_of(read_weights(path, hints))


def encoder_of(weights: ModelWeights) -> VideoClassifier | Encoder:
    """As :func:`read_encoder`, of weights that were read.

    Args:
        weights: of any kind but a detector.

    Returns:
        The model.

    Raises:
        WeightsError: a detector, or values that are not finite.
    """
    name = weights.origin.name
    if weights.kind == "detector":
        raise WeightsError(
            f"{name}: holds a detector, whose norm is no classifier's; give the classifier or the "
            "pre-trained model that it was trained from"
        )
    check_finite(weights.state, origin=name)
    if weights.kind == "classifier":
        model = weights.model()
        assert isinstance(model, VideoClassifier)
        return model
    encoder = Encoder(weights.config, drop_path=0.0, activation_checkpointing=False)
    state = {
        key.removeprefix(_PREFIX): value
        for key, value in weights.state.items()
        if key.startswith(_PREFIX)
    }
    load_into(encoder, state, origin=f"{name}: its encoder's weights")
    return encoder.eval()


def weights_digest(model: nn.Module) -> str:
    """SHA-256 of a model's weights: names, shapes and values in fp32, whatever file they were in.

    Args:
        model: on any device.

    Returns:
        64 hexadecimal digits.
    """
    return state_digest(model.state_dict())


def state_digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of tensors: names, shapes and values in fp32, in the order of their names.

    Files of equal tensors need not be equal: safetensors writes its metadata in any order.

    Args:
        state: on any device.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        digest.update(f"{name} {list(value.shape)}\n".encode())
        digest.update(value.detach().float().cpu().contiguous().numpy().data)
    return digest.hexdigest()
