"""Weights that a run begins from, in whatever layout: what fits, what stays new, and a record."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from torch import Tensor

from videomae_fast.errors import WeightsError
from videomae_fast.interop import ModelWeights, SourceHints, load_into, load_weights, read_weights
from videomae_fast.interop.weights.folders import file_of
from videomae_fast.interop.weights.parts import tally
from videomae_fast.models.config import MAEConfig
from videomae_fast.models.masked_autoencoder import MaskedAutoencoder
from videomae_fast.training import checkpoint
from videomae_fast.training.checkpoint import Log, Saved
from videomae_fast.training.errors import CheckpointError
from videomae_fast.training.finite import not_finite

_ENCODER: Final = (
    "patch_size", "tubelet_size", "width", "depth", "heads", "hidden", "learned_positions",
)  # fmt: skip
_DECODER: Final = (
    "encoder_norm", "decoder_width", "decoder_depth", "decoder_heads", "decoder_hidden",
)  # fmt: skip
_POSITIONS: Final = ("frames", "image_size")
_FREE: Final = ("frames", "image_size", "norm_eps", "final_norm_eps")
"""Fields that tensors don't depend on, and that are the run's."""


class _AsTheRun(SourceHints):
    """What official files don't say is what the run says; the rest is compared in words here."""

    def check(self, config: MAEConfig, origin: str) -> None:
        pass


def begin_from(model: MaskedAutoencoder, path: str | Path, log: Log) -> dict[str, Any]:
    """Loads weights into a new model; what they don't hold stays as it was drawn.

    Args:
        path: a file or folder as :func:`~videomae_fast.interop.read_weights` takes it, or a run's
            or checkpoint's folder. Classifiers and encoders leave the decoder new.

    Returns:
        The record of it, as plain values: file, layout, kind, sha256 of each file, new parts.

    Raises:
        WeightsError: they don't fit the model (names what is missing, unused or different), or
            are not finite.
    """
    path, weights = weights_for(path, model.config)
    there, here = weights.config.grid, model.config.grid
    if model.config.learned_positions and there != here:
        raise WeightsError(
            f"{path}: its learned positions are for {there}, and this run's clips have {here}: "
            "give the run the same image size and frames, or other weights"
        )
    state, left_out = _encoder_of(weights)
    check_finite(path, state)
    own = model.state_dict()
    new = {} if weights.kind == "pre-training" else {k: v for k, v in own.items() if k not in state}
    load_into(model, {**new, **state}, origin=f"{path}: its weights")
    record = {**record_of(path, weights), "new": sorted(new)}
    log(f"began from {named(record)}")
    tell_parts(log, {"stays new": new, "left out": left_out})
    for difference in _differences(weights, model):
        log(f"differs: {difference}")
    return record


def weights_for(
    path: str | Path, config: MAEConfig, *, decoder: bool = True
) -> tuple[Path, ModelWeights]:
    """Weights whose encoder is of a model's shape, and the file or folder that they are read from.

    Args:
        path: as for :func:`begin_from`.
        config: of the model; it says what official files don't.
        decoder: whether the model has one, so that those of weights must be of its shape.

    Raises:
        WeightsError: they can't be read, or are of another shape.
    """
    path = Path(os.path.abspath(path))
    if (path / "checkpoints").is_dir() or (path / checkpoint.STATE).is_file():
        path = checkpoint.weights_file(path)
    weights = read_weights(path, _told(path, config, decoder))
    _check_same_shape(weights, config, decoder)
    return path, weights


def check_finite(path: Path, state: Mapping[str, Tensor]) -> None:
    """Raises WeightsError for a weight that is not finite."""
    bad = not_finite(dict(state))
    if bad is not None:
        raise WeightsError(f"{path}: holds a weight that is not finite: {bad}")


def check_positions(weights: ModelWeights, config: MAEConfig) -> None:
    """Raises WeightsError where positions are for other clips than the config says.

    Official files don't say what their positions are for: there the run's word stands.
    """
    for name in _POSITIONS:
        there, here = getattr(weights.config, name), getattr(config, name)
        if there != here:
            size = "x".join(map(str, there)) if isinstance(there, tuple) else str(there)
            raise WeightsError(
                f"{weights.origin.name}: its positions are for {name} {size}, and this run's for "
                f"{here}: give --trained-{name.replace('_', '-')} {size}, so that they are "
                "stretched to the clips"
            )


def check_same_beginning(saved: Saved, init: str | None) -> dict[str, Any] | None:
    """The record in a checkpoint, which goes on to the next ones.

    Raises:
        CheckpointError: other weights are asked for than the run began from.
    """
    record: dict[str, Any] | None = saved.state.get("init")
    if init is None:
        return record
    if record is None:
        raise CheckpointError(
            f"checkpoint {saved.folder}: its run did not begin from weights, so --init {init} "
            "would not be read: leave it out, or give another output folder"
        )
    path = Path(os.path.abspath(init))
    if path != Path(record["file"]) and path not in Path(record["file"]).parents:
        raise CheckpointError(
            f"checkpoint {saved.folder}: its run began from {named(record)}, so --init {init} "
            "would not be read: leave it out, or give another output folder"
        )
    return record


def record_of(path: Path, weights: ModelWeights) -> dict[str, Any]:
    """What is recorded of all weights that a run begins from, as :func:`named` takes it."""
    return {
        "file": str(path),
        "layout": weights.origin.layout,
        "kind": weights.kind,
        "sha256": digests(path),
    }


def tell_parts(log: Log, found: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Logs what became of tensors, by the parts of a model that they are of."""
    for what, tensors in found.items():
        if tensors:
            log(f"{what}: {in_parts(tensors)}")


def in_parts(tensors: Mapping[str, Tensor]) -> str:
    """The parts of a model that tensors are of, in words."""
    return ", ".join(f"{part} ({n.values:,} values)" for part, n in tally(tensors).items())


def named(record: Mapping[str, Any]) -> str:
    digests = "; ".join(f"{name} sha256 {digest}" for name, digest in record["sha256"].items())
    return f"{record['file']} ({record['layout']}, {record['kind']}; {digests})"


def _told(path: Path, config: MAEConfig, decoder: bool) -> SourceHints:
    # Hugging Face's folders say all of it themselves
    says_all = (path / "config.json").is_file()
    file = file_of(path) if path.is_dir() and not says_all else path
    has_decoder = (
        decoder and not says_all and any("encoder_to_decoder." in key for key in load_weights(file))
    )
    return _AsTheRun(
        heads=config.heads,
        decoder_heads=config.decoder_heads if has_decoder else None,
        frames=config.frames,
        image_size=config.image_size,
    )


def differences_of_shape(there: MAEConfig, here: MAEConfig, *, decoder: bool) -> list[str]:
    """What of a model's shape keeps weights of another one from fitting, in words.

    decoder: whether both have one that has to be the same.
    """
    return [
        f"{name} is {getattr(there, name)} there and {getattr(here, name)} in this run"
        for name in _ENCODER + (_DECODER if decoder else ())
        if getattr(there, name) != getattr(here, name)
    ]


def _check_same_shape(weights: ModelWeights, config: MAEConfig, decoder: bool) -> None:
    both = decoder and weights.kind == "pre-training"
    if wrong := differences_of_shape(weights.config, config, decoder=both):
        raise WeightsError(
            f"{weights.origin.name}: not of this run's model: {'; '.join(wrong)}: give the run the "
            "same size, or other weights"
        )


def _encoder_of(weights: ModelWeights) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The weights by the model's keys, and those that pre-training has no place for."""
    if weights.kind != "classifier":
        return dict(weights.state), {}
    kept, left_out = {}, {}
    for key, value in weights.state.items():
        if key.startswith(("head.", "fc_norm.")):
            left_out[key] = value
        else:
            kept[f"encoder.{key}"] = value
    return kept, left_out


def free_differences(there: MAEConfig, here: MAEConfig) -> list[str]:
    """What of a model's shape differs from that of weights, and fits all the same, in words."""
    return _in_words((name, getattr(there, name), getattr(here, name)) for name in _FREE)


def _differences(weights: ModelWeights, model: MaskedAutoencoder) -> list[str]:
    return free_differences(weights.config, model.config) + _in_words(
        (name, value, getattr(model, name)) for name, value in weights.options.items()
    )


def _in_words(found: Iterable[tuple[str, Any, Any]]) -> list[str]:
    return [
        f"{name} was {there} there and is {here} in this run"
        for name, there, here in found
        if there != here
    ]


def digests(path: Path) -> dict[str, str]:
    files = [path] if path.is_file() else sorted(each for each in path.iterdir() if each.is_file())
    return {each.name: _sha256(each) for each in files}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
