"""Weights of the official code and of Hugging Face, to ours and back, without loss."""

from videomae_fast.former_names import former_names
from videomae_fast.interop.weights import (
    ConversionOptions,
    ModelWeights,
    SourceHints,
    convert,
    from_hugging_face,
    load_into,
    load_weights,
    read_rows,
    read_weights,
    select_classes,
    to_classifier,
    to_hugging_face,
    with_official_eps,
    write_weights,
)

__all__ = [
    "ConversionOptions",
    "ModelWeights",
    "SourceHints",
    "convert",
    "from_hugging_face",
    "load_into",
    "load_weights",
    "read_rows",
    "read_weights",
    "select_classes",
    "to_classifier",
    "to_hugging_face",
    "with_official_eps",
    "write_weights",
]

__getattr__ = former_names(__name__, {"Told": "SourceHints", "Wanted": "ConversionOptions"})
