"""Names of classes, and label spaces made of several data sets."""

from videomae_fast.data.labels.kinetics import kinetics_names, kinetics_rows
from videomae_fast.data.labels.merging import LabelSource, MergedLabels, merge_labels

__all__ = ["LabelSource", "MergedLabels", "kinetics_names", "kinetics_rows", "merge_labels"]
