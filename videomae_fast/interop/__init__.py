"""Weights of the official code and of Hugging Face, to ours and back, without loss."""

from videomae_fast.interop.weights import (
    ModelWeights,
    Told,
    Wanted,
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
    "ModelWeights",
    "Told",
    "Wanted",
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
