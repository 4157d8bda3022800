"""Weights of the official code and of Hugging Face, to ours and back, without loss."""

from videomae_fast.interop.classifier import read_rows, select_classes, to_classifier
from videomae_fast.interop.convert import Wanted, convert
from videomae_fast.interop.files import read_weights, write_weights
from videomae_fast.interop.hugging_face import from_hugging_face, to_hugging_face
from videomae_fast.interop.layouts import Told
from videomae_fast.interop.model_weights import ModelWeights, with_official_eps
from videomae_fast.interop.weights import load_into, load_weights

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
