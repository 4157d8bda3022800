"""Hugging Face's VideoMAE: its config.json and tensors to ours and back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from videomae_fast.errors import WeightsError
from videomae_fast.interop.reading.json_files import read_json
from videomae_fast.interop.reading.refusal import refused
from videomae_fast.interop.weights.hugging_face_keys import (
    BiasNames,
    from_hugging_face_keys,
    to_hugging_face_keys,
)
from videomae_fast.interop.weights.layouts import SourceHints, decoder_of, make_config, mlp_ratios
from videomae_fast.interop.weights.model_weights import Change, Kind, ModelWeights, origin_of
from videomae_fast.interop.weights.state_dicts import load_weights, named
from videomae_fast.models.config import MAEConfig
from videomae_fast.models.positions import sinusoid_table
from videomae_fast.ops.patch_gather import IMAGENET_MEAN, IMAGENET_STD

CONFIG: Final = "config.json"
WEIGHTS: Final = "model.safetensors"
PROCESSOR: Final = "preprocessor_config.json"
_BILINEAR: Final = 2  # PIL's number
_FILES: Final = (WEIGHTS, "pytorch_model.bin")
_INDEX: Final = ".index.json"
_SHARD: Final = re.compile(r"-\d+-of-\d+\.")
FINAL_NORM_EPS: Final = 1e-5
"""What Hugging Face's decoder.norm and fc_norm have, whatever the config says."""

_DEFAULTS: Final[dict[str, Any]] = {
    "image_size": 224,
    "patch_size": 16,
    "num_channels": 3,
    "num_frames": 16,
    "tubelet_size": 2,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "layer_norm_eps": 1e-12,
    "use_mean_pooling": True,
    "decoder_num_attention_heads": 6,
    "decoder_hidden_size": 384,
    "decoder_num_hidden_layers": 4,
    "decoder_intermediate_size": 1536,
    "norm_pix_loss": True,
}
_SIDES: Final = ("image_size", "patch_size")
_ARCHITECTURES: Final[dict[Kind, str]] = {
    "pre-training": "VideoMAEForPreTraining",
    "classifier": "VideoMAEForVideoClassification",
    "encoder": "VideoMAEModel",
}


def is_hugging_face(state: Mapping[str, Tensor]) -> bool:
    """Whether these are Hugging Face's names, with or without ``videomae.``."""
    return any(key.removeprefix("videomae.").startswith("embeddings.") for key in state)


def is_hugging_face_folder(folder: Path) -> bool:
    """Whether a folder has a config.json beside weights of Hugging Face's names.

    A run's has no weights beside it, and a checkpoint's has no config.json.
    """
    names = [name + end for name in _FILES for end in ("", _INDEX)]
    return (folder / CONFIG).is_file() and any((folder / name).is_file() for name in names)


def from_hugging_face(folder: str | Path, told: SourceHints | None = None) -> ModelWeights:
    """The weights in a folder that ``save_pretrained`` or the Hub gives.

    The config keeps Hugging Face's LayerNorm epsilons, so the model computes what theirs does; see
    :func:`~videomae_fast.interop.weights.model_weights.with_official_eps`.

    Args:
        folder: with config.json and model.safetensors (or pytorch_model.bin), whole or in shards.
        told: must agree with config.json where it says something.

    Raises:
        WeightsError: files are missing or broken, a setting has no counterpart here, or tensors
            are missing, unused or of another shape.
    """
    folder = Path(folder)
    settings = _settings(folder)
    return _weights(settings, _load(folder), told, str(folder))


def from_hugging_face_file(
    file: Path, state: Mapping[str, Tensor], told: SourceHints | None = None
) -> ModelWeights:
    """The same, of one file beside a config.json, which may have another name; one shard is none.

    Args:
        state: what the file holds.
    """
    if not (file.parent / CONFIG).is_file():
        raise WeightsError(
            f"{file}: Hugging Face's weights without the {CONFIG} beside them, which says the "
            "rest; get it from the same place"
        )
    if _SHARD.search(file.name):
        return from_hugging_face(file.parent, told)
    return _weights(_settings(file.parent), state, told, str(file))


def _settings(folder: Path) -> dict[str, Any]:
    settings = read_json(folder / CONFIG)
    if settings.get("model_type") != "videomae":
        raise WeightsError(f"{folder / CONFIG}: not the config of a VideoMAE (model_type)")
    return settings


def _weights(
    settings: Mapping[str, Any], state: Mapping[str, Tensor], told: SourceHints | None, name: str
) -> ModelWeights:
    """Weights of a config.json and tensors by Hugging Face's names."""
    origin = origin_of(name, "hugging-face", state)
    prefixed = {key: _with_prefix(key) for key in state}
    kind: Kind = "encoder"
    if any(key.startswith("classifier.") for key in state):
        kind = "classifier"
    elif any(key.startswith("decoder.") or key == "mask_token" for key in state):
        kind = "pre-training"
    config = _config(settings, kind, name)
    if told is not None:
        told.check(config, name)
    kept: dict[str, Tensor] = {}
    tables: dict[str, Tensor] = {}
    key_biases: dict[str, Tensor] = {}
    for key, value in state.items():
        special = {"position_embeddings": tables, "key.bias": key_biases}
        end = next((end for end in special if key.endswith(end)), "")
        special.get(end, kept)[prefixed[key]] = value
    changes = _checked_tables(tables, config, name)
    if key_biases:
        changes.append(
            Change(
                "left out",
                "biases of the keys, as transformers 5.5.1 to 5.17 have: they move all scores of a "
                "query alike, which softmax undoes, so the function is the same",
                key_biases,
            )
        )
    if dropout := [n for n in ("hidden_dropout_prob", "attention_probs_dropout_prob")
                   if _get(settings, n)]:  # fmt: skip
        changes.append(Change("differs", f"no {' and '.join(dropout)} when training further"))
    changes.append(
        Change(
            "kept",
            f"LayerNorm's epsilon: {config.norm_eps:g} in blocks, {config.final_norm_eps:g} before "
            "the head; the official code has 1e-6",
        )
    )
    try:
        official = from_hugging_face_keys(kept, classifier=kind == "classifier")
    except WeightsError as error:
        raise WeightsError(f"{name}: {error}") from error
    return ModelWeights(
        kind,
        config,
        official,
        origin,
        options={"normalize_target": _get(settings, "norm_pix_loss")}
        if kind == "pre-training"
        else {},
        labels=_labels(settings, name) if kind == "classifier" else None,
        changes=tuple(changes),
    )


def to_hugging_face(
    weights: ModelWeights, *, biases: BiasNames = "q_bias"
) -> tuple[dict[str, Any], dict[str, Tensor], list[Change]]:
    """What goes into config.json and model.safetensors, and what could not be said there.

    Args:
        biases: spelling of the q and v biases, see
            :mod:`~videomae_fast.interop.weights.hugging_face_keys`.

    Raises:
        WeightsError: learned positions or LayerScale, which their model does not have.
    """
    config, name = weights.config, weights.origin.name
    if config.learned_positions or config.layer_scale:
        what = "learned positions" if config.learned_positions else "LayerScale"
        raise WeightsError(f"{name}: Hugging Face's VideoMAE has no {what}")
    side = config.image_size
    settings: dict[str, Any] = {
        "architectures": [_ARCHITECTURES[weights.kind]],
        "model_type": "videomae",
        "torch_dtype": _dtype(weights.state),
        "image_size": side if isinstance(side, int) else list(side),
        "patch_size": config.patch_size,
        "num_channels": 3,
        "num_frames": config.frames,
        "tubelet_size": config.tubelet_size,
        "hidden_size": config.width,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.heads,
        "intermediate_size": config.hidden,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "initializer_range": 0.02,
        "layer_norm_eps": config.norm_eps,
        "qkv_bias": True,
        "use_mean_pooling": weights.kind == "classifier" or not config.encoder_norm,
        "decoder_num_attention_heads": config.decoder_heads,
        "decoder_hidden_size": config.decoder_width,
        "decoder_num_hidden_layers": config.decoder_depth,
        "decoder_intermediate_size": config.decoder_hidden,
        "norm_pix_loss": weights.options.get("normalize_target", True),
    }
    if weights.kind == "classifier":
        labels = weights.labels or [f"LABEL_{i}" for i in range(weights.classes)]
        settings["id2label"] = {str(i): label for i, label in enumerate(labels)}
        settings["label2id"] = {label: i for i, label in enumerate(labels)}
    changes = []
    if weights.kind != "encoder" and config.final_norm_eps != FINAL_NORM_EPS:
        norm = "fc_norm" if weights.kind == "classifier" else "decoder.norm"
        changes.append(
            Change(
                "differs",
                f"{norm}'s epsilon is {config.final_norm_eps:g} here and {FINAL_NORM_EPS:g} in "
                "Hugging Face's code, where no config can change it: a row of variance v changes "
                "by a factor of about 1 + (old - new) / 2v",
            )
        )
    changes += [
        Change("left out", f"option {option}, which Hugging Face's model does not have")
        for option, value in weights.options.items()
        if option != "normalize_target" and value
    ]
    return settings, to_hugging_face_keys(weights.state, biases=biases), changes


def processor_settings(config: MAEConfig) -> dict[str, Any]:
    """What goes into preprocessor_config.json: the clips that the model is for.

    As the official code takes clips for testing: the short side scaled to that of the clip,
    bilinear, the middle cut out. Where clips are not square, both sides are scaled.
    """
    side = config.image_size
    height, width = (side, side) if isinstance(side, int) else side
    size = {"height": height, "width": width}
    return {
        "image_processor_type": "VideoMAEImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": height} if height == width else size,
        "resample": _BILINEAR,
        "do_center_crop": True,
        "crop_size": size,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(IMAGENET_MEAN),
        "image_std": list(IMAGENET_STD),
    }


def _config(settings: Mapping[str, Any], kind: Kind, origin: str) -> MAEConfig:
    """MAEConfig of a config.json.

    Raises:
        WeightsError: a setting that our model can't have.
    """
    for name, value in settings.items():
        if name in _DEFAULTS and not _fits(value, name):
            raise WeightsError(
                f"{origin}: {name} of {CONFIG} holds a size that is none, or no value for it (a "
                f"{type(value).__name__}); get the file from the same place as the weights"
            )
    bias = settings.get("qv_bias", settings.get("qkv_bias", True))
    pooled = _get(settings, "use_mean_pooling")
    for wrong, told in (
        (_get(settings, "hidden_act") != "gelu", f"hidden_act {_get(settings, 'hidden_act')!r}"),
        (_get(settings, "num_channels") != 3, f"num_channels {_get(settings, 'num_channels')}"),
        (not bias, "qv_bias false"),
        (kind == "classifier" and not pooled, "use_mean_pooling false in a classifier"),
    ):
        if wrong:
            raise WeightsError(f"{origin}: {told}: the models here don't have that")
    patch = _get(settings, "patch_size")
    if isinstance(patch, list):
        if len(set(patch)) != 1:
            raise WeightsError(f"{origin}: patch_size {patch}: the models here have square patches")
        patch = patch[0]
    side = _get(settings, "image_size")
    width, narrow = _get(settings, "hidden_size"), _get(settings, "decoder_hidden_size")
    narrow_mlp = None
    if kind == "pre-training":
        narrow_mlp = narrow, _get(settings, "decoder_intermediate_size")
        decoder = {
            "decoder_width": narrow,
            "decoder_depth": _get(settings, "decoder_num_hidden_layers"),
            "decoder_heads": _get(settings, "decoder_num_attention_heads"),
        }
    else:
        decoder = decoder_of(width)
    with refused(origin, f"{CONFIG} describes no model"):
        return make_config(
            {
                "image_size": tuple(side) if isinstance(side, list) else side,
                "patch_size": patch,
                "tubelet_size": _get(settings, "tubelet_size"),
                "frames": _get(settings, "num_frames"),
                "width": width,
                "depth": _get(settings, "num_hidden_layers"),
                "heads": _get(settings, "num_attention_heads"),
                "encoder_norm": kind == "classifier" or not pooled,
                **mlp_ratios((width, _get(settings, "intermediate_size")), narrow_mlp, origin),
                "norm_eps": _get(settings, "layer_norm_eps"),
                "final_norm_eps": FINAL_NORM_EPS,
                **decoder,
            },
            origin,
        )


def _get(settings: Mapping[str, Any], name: str) -> Any:
    return settings.get(name, _DEFAULTS[name])


def _fits(value: Any, name: str) -> bool:
    """Whether a value of config.json has the type of its default; sizes may be one per side."""
    kind = type(_DEFAULTS[name])
    if name in _SIDES and isinstance(value, list):
        return len(value) == 2 and all(type(side) is int for side in value)
    return type(value) is kind or (kind is float and type(value) is int)


def _with_prefix(key: str) -> str:
    """Names of a bare VideoMAEModel get the prefix that they have in the other two."""
    bare = key.startswith(("embeddings.", "encoder.layer.", "layernorm."))
    return f"videomae.{key}" if bare else key


def _labels(settings: Mapping[str, Any], origin: str) -> tuple[str, ...] | None:
    """Class names by index; None for the LABEL_0 … that stand for none."""
    told = settings.get("id2label")
    if told is None:
        return None
    if not isinstance(told, dict) or set(told) != {str(i) for i in range(len(told))}:
        raise WeightsError(f"{origin}: id2label of {CONFIG} does not number its classes from 0 on")
    if not all(isinstance(label, str | int | float) for label in told.values()):
        raise WeightsError(f"{origin}: id2label of {CONFIG} has classes whose name is none")
    labels = tuple(str(told[str(i)]) for i in range(len(told)))
    nameless = all(label == f"LABEL_{i}" for i, label in enumerate(labels))
    return None if nameless else labels


def _checked_tables(tables: Mapping[str, Tensor], config: MAEConfig, origin: str) -> list[Change]:
    """Position tables must be the fixed sinusoid, which is computed here and not stored."""
    for key, table in tables.items():
        width = config.width if "embeddings." in key else config.decoder_width
        # A table that was stored in half precision is still the sinusoid.
        close = 1e-5 if table.dtype == torch.float32 else 1e-2
        right = table.shape == (1, config.grid.tokens, width) and (
            table.float() - sinusoid_table(config.grid.tokens, width)
        ).abs().max().le(close)  # fmt: skip
        if not right:
            raise WeightsError(f"{origin}: {key} is not the fixed sinusoid of {config.grid}")
    if not tables:
        return []
    return [Change("left out", "the fixed sinusoid, which is computed", dict(tables))]


def _load(folder: Path) -> dict[str, Tensor]:
    """The state dict, from one file or from shards."""
    for name in _FILES:
        if (folder / name).is_file():
            return load_weights(folder / name)
        index = folder / f"{name}{_INDEX}"
        if index.is_file():
            return _load_shards(index)
    raise WeightsError(f"{folder}: neither {' nor '.join(_FILES)} in it, nor shards")


def _load_shards(index: Path) -> dict[str, Tensor]:
    """The state dict of the files that an index names."""
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise WeightsError(f"{index}: can't be read: its weight_map names no files")
    state: dict[str, Tensor] = {}
    for name in sorted(set(places.values())):
        if Path(name).name != name:
            raise WeightsError(f"{index}: names {name[:80]!r}, which is not a file beside it")
        shard = load_weights(index.parent / name)
        if twice := sorted(set(shard) & set(state)):
            raise WeightsError(f"{index}: two of its files hold {named(twice)}")
        state.update(shard)
    if set(state) != set(places):
        odd = sorted(set(state) ^ set(places))
        raise WeightsError(f"{index}: shards and index don't agree on {named(odd)}")
    return state


def _dtype(state: Mapping[str, Tensor]) -> str:
    """Name of the widest dtype."""
    widest = max((value.dtype for value in state.values()), key=lambda dtype: dtype.itemsize)
    return str(widest).removeprefix("torch.")
