"""The model that a run trained."""

from __future__ import annotations

from pathlib import Path

from videomae_fast.interop import read_weights
from videomae_fast.interop.weights.description import description_of
from videomae_fast.models.config import MAEConfig
from videomae_fast.models.masked_autoencoder import MaskedAutoencoder
from videomae_fast.training.checkpoint import weights_file
from videomae_fast.training.errors import CheckpointError


def load_model(path: str | Path) -> tuple[MaskedAutoencoder, MAEConfig]:
    """The model of a checkpoint, on the CPU, in evaluation mode, with its config.

    Args:
        path: a checkpoint folder, a run's folder (its newest whole checkpoint is taken), or a
            ``.safetensors`` file that this package wrote.

    Returns:
        The model, and the shape that it was made with.

    Raises:
        CheckpointError: none of these, or not whole.
        WeightsError: damaged, or the weights don't fit the shape that is written beside them.
    """
    file = weights_file(Path(path))
    if description_of(file) is None:
        raise CheckpointError(
            f"{file}: does not say what shape its model has, so it was not written by pre-training "
            "here; convert it first (videomae-fast convert --to ours)"
        )
    weights = read_weights(file)
    if weights.kind != "pre-training":
        raise CheckpointError(
            f"{file}: holds a {weights.kind}, not a masked autoencoder with its decoder"
        )
    model = weights.model()
    assert isinstance(model, MaskedAutoencoder)
    return model, weights.config
