"""Weights of other code to ours and back, without loss; other code's models accelerated."""

from videomae_fast.former_names import former_names
from videomae_fast.interop.weights.check import load_into
from videomae_fast.interop.weights.contents import to_hugging_face
from videomae_fast.interop.weights.convert import ConversionOptions, ConversionReport, convert
from videomae_fast.interop.weights.encoder import read_encoder
from videomae_fast.interop.weights.heads import (
    HeadNames,
    HeadRows,
    read_rows,
    select_classes,
    to_classifier,
)
from videomae_fast.interop.weights.model_weights import ModelWeights, with_official_eps
from videomae_fast.interop.weights.read import from_hugging_face, read_weights
from videomae_fast.interop.weights.shapes import SourceHints
from videomae_fast.interop.weights.state_dicts import load_weights
from videomae_fast.interop.weights.write import write_weights

__all__ = [
    "ConversionOptions",
    "ConversionReport",
    "HeadNames",
    "HeadRows",
    "ModelWeights",
    "SourceHints",
    "convert",
    "from_hugging_face",
    "load_into",
    "load_weights",
    "read_encoder",
    "read_rows",
    "read_weights",
    "select_classes",
    "to_classifier",
    "to_hugging_face",
    "with_official_eps",
    "write_weights",
]

__getattr__ = former_names(__name__, {"Told": "SourceHints", "Wanted": "ConversionOptions"})
