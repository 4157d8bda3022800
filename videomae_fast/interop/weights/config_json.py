"""Hugging Face's config.json and preprocessor_config.json: from and to the config of our models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from torch import Tensor

from videomae_fast.errors import WeightsError
from videomae_fast.interop.reading.refusal import refused
from videomae_fast.interop.weights.hub_folders import CONFIG
from videomae_fast.interop.weights.model_weights import Kind, ModelWeights
from videomae_fast.interop.weights.shapes import decoder_of, make_config, mlp_ratios
from videomae_fast.models.config import MAEConfig
from videomae_fast.ops.patch_gather import IMAGENET_MEAN, IMAGENET_STD

_BILINEAR: Final = 2  # PIL's number
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
_FIELDS: Final = {
    "image_size": "image_size",
    "patch_size": "patch_size",
    "num_frames": "frames",
    "tubelet_size": "tubelet_size",
    "hidden_size": "width",
    "num_hidden_layers": "depth",
    "num_attention_heads": "heads",
    "intermediate_size": "hidden",
    "layer_norm_eps": "norm_eps",
    "decoder_num_attention_heads": "decoder_heads",
    "decoder_hidden_size": "decoder_width",
    "decoder_num_hidden_layers": "decoder_depth",
    "decoder_intermediate_size": "decoder_hidden",
}
"""Settings that are fields of MAEConfig, by their name here."""
_SIDES: Final = ("image_size", "patch_size")
_ARCHITECTURES: Final[dict[Kind, str]] = {
    "pre-training": "VideoMAEForPreTraining",
    "classifier": "VideoMAEForVideoClassification",
    "encoder": "VideoMAEModel",
}


def settings_for(weights: ModelWeights) -> dict[str, Any]:
    """What goes into config.json.

    Args:
        weights: of any kind but a detector.

    Returns:
        Settings by Hugging Face's names.

    Raises:
        WeightsError: a detector, learned positions or LayerScale, which their models don't have.
    """
    config, kind = weights.config, weights.kind
    if kind == "detector" or config.learned_positions or config.layer_scale:
        what = "learned positions" if config.learned_positions else "LayerScale"
        what = "detector" if kind == "detector" else what
        raise WeightsError(f"{weights.origin.name}: Hugging Face's VideoMAE has no {what}")
    settings: dict[str, Any] = {
        **_DEFAULTS,
        "architectures": [_ARCHITECTURES[kind]],
        "model_type": "videomae",
        "torch_dtype": _dtype(weights.state),
        "initializer_range": 0.02,
        "qkv_bias": True,
        "use_mean_pooling": kind == "classifier" or not config.encoder_norm,
        "norm_pix_loss": weights.options.get("normalize_target", True),
        **{theirs: getattr(config, ours) for theirs, ours in _FIELDS.items()},
    }
    if not isinstance(config.image_size, int):
        settings["image_size"] = list(config.image_size)
    if kind == "classifier":
        labels = weights.labels or [f"LABEL_{i}" for i in range(weights.classes)]
        settings["id2label"] = {str(i): label for i, label in enumerate(labels)}
        settings["label2id"] = {label: i for i, label in enumerate(labels)}
    return settings


def processor_settings(config: MAEConfig) -> dict[str, Any]:
    """What goes into preprocessor_config.json: the clips that the model is for.

    As the official code takes clips for testing: the short side scaled to that of the clip,
    bilinear, the middle cut out. Where clips are not square, both sides are scaled.

    Args:
        config: of the model.

    Returns:
        Settings by Hugging Face's names.
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


def config_of(settings: Mapping[str, Any], kind: Kind, origin: str) -> MAEConfig:
    """The config of our model that computes what theirs of these settings does.

    Args:
        settings: what config.json says.
        kind: which of their models the tensors are.
        origin: the source's name, for messages.

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
    pooled = setting(settings, "use_mean_pooling")
    patch = setting(settings, "patch_size")
    sides = set(patch) if isinstance(patch, list) else {patch}
    activation, channels = setting(settings, "hidden_act"), setting(settings, "num_channels")
    for wrong, what in (
        (activation != "gelu", f"hidden_act {activation!r}"),
        (channels != 3, f"num_channels {channels}"),
        (not bias, "qv_bias false"),
        (kind == "classifier" and not pooled, "use_mean_pooling false in a classifier"),
        (len(sides) != 1, f"patch_size {patch}, not square patches"),
    ):
        if wrong:
            raise WeightsError(f"{origin}: {what}: the models here don't have that")
    values = {ours: setting(settings, theirs) for theirs, ours in _FIELDS.items()}
    encoder, decoder = ((values["width"], values.pop("hidden")),
                        (values["decoder_width"], values.pop("decoder_hidden")))  # fmt: skip
    if kind != "pre-training":
        values |= decoder_of(values["width"])
    side = values["image_size"]
    values |= {
        "image_size": tuple(side) if isinstance(side, list) else side,
        "patch_size": sides.pop(),
        "encoder_norm": kind == "classifier" or not pooled,
        "final_norm_eps": FINAL_NORM_EPS,
    }
    with refused(origin, f"{CONFIG} describes no model"):
        ratios = mlp_ratios(encoder, decoder if kind == "pre-training" else None, origin)
        return make_config({**values, **ratios}, origin)


def setting(settings: Mapping[str, Any], name: str) -> Any:
    """A setting, or the value that their code takes where config.json does not say it."""
    return settings.get(name, _DEFAULTS[name])


def _fits(value: Any, name: str) -> bool:
    """Whether a value of config.json has the type of its default; sizes may be one per side."""
    kind = type(_DEFAULTS[name])
    if name in _SIDES and isinstance(value, list):
        return len(value) == 2 and all(type(side) is int for side in value)
    return type(value) is kind or (kind is float and type(value) is int)


def labels_of(settings: Mapping[str, Any], origin: str) -> tuple[str, ...] | None:
    """Names of the classes by index.

    Args:
        settings: of config.json.
        origin: the source's name, for messages.

    Returns:
        The names; None where there are none, or LABEL_0 …, which stand for none.

    Raises:
        WeightsError: ``id2label`` does not number its classes, or their names are none.
    """
    names = settings.get("id2label")
    if names is None:
        return None
    if not isinstance(names, dict) or set(names) != {str(i) for i in range(len(names))}:
        raise WeightsError(f"{origin}: id2label of {CONFIG} does not number its classes from 0 on")
    if not all(isinstance(label, str | int | float) for label in names.values()):
        raise WeightsError(f"{origin}: id2label of {CONFIG} has classes whose name is none")
    labels = tuple(str(names[str(i)]) for i in range(len(names)))
    nameless = all(label == f"LABEL_{i}" for i, label in enumerate(labels))
    return None if nameless else labels


def _dtype(state: Mapping[str, Tensor]) -> str:
    """Name of the widest dtype."""
    widest = max((value.dtype for value in state.values()), key=lambda dtype: dtype.itemsize)
    return str(widest).removeprefix("torch.")
