"""Weights files of every layout: read, changed, checked and written."""

from videomae_fast.interop.weights.convert import ConversionOptions, convert
from videomae_fast.interop.weights.files import read_weights, write_weights
from videomae_fast.interop.weights.heads import read_rows, select_classes, to_classifier
from videomae_fast.interop.weights.hugging_face import from_hugging_face, to_hugging_face
from videomae_fast.interop.weights.layouts import SourceHints
from videomae_fast.interop.weights.model_weights import ModelWeights, with_official_eps
from videomae_fast.interop.weights.state_dicts import load_into, load_weights

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
