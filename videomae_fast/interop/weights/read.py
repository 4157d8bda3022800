"""Files of any layout to the weights of a model: what is there, whose names, which config."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from videomae_fast.errors import WeightsError
from videomae_fast.interop.reading.refusal import refused
from videomae_fast.interop.weights.config_json import config_of, labels_of, setting
from videomae_fast.interop.weights.description import Description, description_of
from videomae_fast.interop.weights.folders import file_of
from videomae_fast.interop.weights.hub_folders import (
    CONFIG,
    is_hugging_face_folder,
    is_shard,
    load_folder,
    settings_of,
)
from videomae_fast.interop.weights.layouts.hugging_face import (
    from_hugging_face_keys,
    is_hugging_face,
    kind_of_hugging_face,
    with_prefix,
)
from videomae_fast.interop.weights.layouts.mmaction2 import (
    from_mmaction2_keys,
    is_detector,
    is_mmaction2,
)
from videomae_fast.interop.weights.layouts.official import kind_of, unwrapped
from videomae_fast.interop.weights.model_weights import Change, ModelWeights, origin_of
from videomae_fast.interop.weights.positions import is_sinusoid, without_sinusoids
from videomae_fast.interop.weights.shapes import SourceHints, infer_config
from videomae_fast.interop.weights.state_dicts import load_weights
from videomae_fast.models.feature_alignment import ALIGNMENT


@dataclass(frozen=True)
class Source:
    """What files hold: tensors by the names that they have there, and what is said beside them.

    Attributes:
        name: for messages.
        state: the tensors, without the prefixes of wrappers.
        description: of one of our files.
        settings: of Hugging Face's config.json.
    """

    name: str
    state: Mapping[str, Tensor]
    description: Description | None = None
    settings: Mapping[str, Any] | None = None


def read_weights(path: str | Path, hints: SourceHints | None = None) -> ModelWeights:
    """Weights of any layout; which one it is, is seen from the files and keys.

    Args:
        path: an official checkpoint (.pth, or .safetensors with official keys), also as other code
            wraps it (:func:`~videomae_fast.interop.weights.layouts.official.unwrapped`), one of
            mmaction2's, one of our .safetensors files, a folder of Hugging Face's (or the weights
            file in one), a checkpoint of DeepSpeed's or the folder of its `latest`, a run's folder
            (its newest whole checkpoint is taken) or a checkpoint's.
        hints: what official files don't say.

    Returns:
        The weights by official names, with their config; tensors are on the CPU, in the file's
        dtype and mapped from it.

    Raises:
        WeightsError: not such a file; or tensors are missing, unused or of another shape.
    """
    return weights_of(read_source(Path(path)), hints or SourceHints())


def from_hugging_face(folder: str | Path, hints: SourceHints | None = None) -> ModelWeights:
    """The weights in a folder that ``save_pretrained`` or the Hub gives.

    The config keeps Hugging Face's LayerNorm epsilons, so the model computes what theirs does; see
    :func:`~videomae_fast.interop.with_official_eps`.

    Args:
        folder: with config.json and model.safetensors (or pytorch_model.bin), whole or in shards.
        hints: must agree with config.json where they say something.

    Returns:
        The weights by official names, with their config.

    Raises:
        WeightsError: files are missing or broken, a setting has no counterpart here, or tensors
            are missing, unused or of another shape.
    """
    return weights_of(_hub_folder(Path(folder)), hints or SourceHints())


def read_source(path: Path) -> Source:
    """The tensors that a path stands for, and what is said beside them.

    Args:
        path: as :func:`read_weights` takes it.

    Returns:
        The tensors by the names that they have there.

    Raises:
        WeightsError: no weights are there, or they can't be read.
    """
    if path.is_dir():
        if is_hugging_face_folder(path):
            return _hub_folder(path)
        path = file_of(path)
    name = str(path)
    description = description_of(path)
    if description is not None:
        return Source(name, load_weights(path), description=description)
    state = unwrapped(load_weights(path), name)
    if not is_hugging_face(state):
        return Source(name, state)
    if not (path.parent / CONFIG).is_file():
        raise WeightsError(
            f"{path}: Hugging Face's weights without the {CONFIG} beside them, which says the "
            "rest; get it from the same place"
        )
    if is_shard(path):
        return _hub_folder(path.parent)
    return Source(name, state, settings=settings_of(path.parent))


def weights_of(source: Source, hints: SourceHints) -> ModelWeights:
    """The weights of a source: its names changed to ours, its config as it says or infers.

    Args:
        source: of any layout.
        hints: what it doesn't say.

    Returns:
        The weights by official names; where the layout packs tensors otherwise, in new memory.

    Raises:
        WeightsError: no model of this package, or hints that contradict what the source says.
    """
    if source.description is not None:
        return _of_our_file(source, source.description, hints)
    if source.settings is not None:
        return _of_hugging_face(source, source.settings, hints)
    if is_mmaction2(source.state):
        return _of_mmaction2(source, hints)
    return _of_official(source, hints)


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """What layouts, which know no files, say is wrong gets the source's name."""
    try:
        yield
    except WeightsError as error:
        raise WeightsError(f"{name}: {error}") from error


def _hub_folder(folder: Path) -> Source:
    settings = settings_of(folder)
    return Source(str(folder), load_folder(folder), settings=settings)


def _of_our_file(source: Source, said: Description, hints: SourceHints) -> ModelWeights:
    hints.check(said.config, source.name)
    alone = {key: value for key, value in source.state.items() if key.startswith(ALIGNMENT)}
    changes: tuple[Change, ...] = ()
    if said.kind == "classifier" and alone:
        why = "projections to a teacher's features, which distillation alone has"
        changes = (Change("left out", why, alone),)
    return ModelWeights(
        said.kind,
        said.config,
        {k: v for k, v in source.state.items() if not changes or k not in alone},
        origin_of(source.name, "ours", source.state),
        options=said.options,
        labels=said.labels,
        changes=changes,
    )


def _of_official(source: Source, hints: SourceHints) -> ModelWeights:
    name, state = source.name, source.state
    with refused(name, "its tensors describe no model"):
        kind = kind_of(state, name, detector=hints.detector)
        config = infer_config(state, kind, hints, name)
    origin = origin_of(name, "official", state)
    if kind != "pre-training":
        return ModelWeights(kind, config, state, origin)
    assumed = Change("kept", "normalize_target true, as in all recipes: official files don't say")
    options = {"normalize_target": True}
    return ModelWeights(kind, config, state, origin, options=options, changes=(assumed,))


def _of_mmaction2(source: Source, hints: SourceHints) -> ModelWeights:
    name = source.name
    detector = hints.detector or is_detector(source.state)
    with refused(name, "its tensors describe no model"):
        with _naming(name):
            state = from_mmaction2_keys(source.state)
        tables = {}
        if "pos_embed" in state and is_sinusoid(state["pos_embed"]):
            tables["pos_embed"] = state.pop("pos_embed")
        kind = kind_of(state, name, detector=detector)
        config = infer_config(state, kind, hints, name)
        changes = without_sinusoids(tables, config, name)
    origin = origin_of(name, "mmaction2", source.state)
    return ModelWeights(kind, config, state, origin, changes=tuple(changes))


def _of_hugging_face(
    source: Source, settings: Mapping[str, Any], hints: SourceHints
) -> ModelWeights:
    name = source.name
    kind = kind_of_hugging_face(source.state)
    config = config_of(settings, kind, name)
    hints.check(config, name)
    kept: dict[str, Tensor] = {}
    tables: dict[str, Tensor] = {}
    key_biases: dict[str, Tensor] = {}
    special = {"position_embeddings": tables, "key.bias": key_biases}
    with _naming(name):
        state = with_prefix(source.state)
    for key, value in state.items():
        end = next((end for end in special if key.endswith(end)), "")
        special.get(end, kept)[key] = value
    changes = without_sinusoids(tables, config, name)
    if key_biases:
        changes.append(
            Change(
                "left out",
                "biases of the keys, as transformers 5.5.1 to 5.17 have: they move all scores of a "
                "query alike, which softmax undoes, so the function is the same",
                key_biases,
            )
        )
    rates = ("hidden_dropout_prob", "attention_probs_dropout_prob")
    if dropout := [rate for rate in rates if setting(settings, rate)]:
        changes.append(Change("differs", f"no {' and '.join(dropout)} when training further"))
    changes.append(
        Change(
            "kept",
            f"LayerNorm's epsilon: {config.norm_eps:g} in blocks, {config.final_norm_eps:g} before "
            "the head; the official code has 1e-6",
        )
    )
    with _naming(name):
        state = from_hugging_face_keys(kept, classifier=kind == "classifier")
    options = {"normalize_target": setting(settings, "norm_pix_loss")}
    return ModelWeights(
        kind,
        config,
        state,
        origin_of(name, "hugging-face", source.state),
        options=options if kind == "pre-training" else {},
        labels=labels_of(settings, name) if kind == "classifier" else None,
        changes=tuple(changes),
    )
