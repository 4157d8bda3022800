"""Stored features of the videos of labelled lists, as tensors that probes train on."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from videomae_fast.data.errors import ListError, OutputError
from videomae_fast.data.lists import load_list
from videomae_fast.errors import UsageError
from videomae_fast.evaluation.stored import MADE_FROM

ListFormat = Literal["labels", "folder-labels"]


@dataclass(frozen=True)
class LabelledFeatures:
    """Features of a list's videos.

    Attributes:
        vectors: fp32 [N, width], the mean over windows and over what a window has.
        tokens: fp32 [N, n, width], what the middle window has: 1 of a mean, its time slots or its
            tokens; None where videos differ in n.
        labels: int64 [N].
        left_out: videos that have no features since they could not be read, ``list:line: path``.
        made_from: weights, model, windows and pixels of all of them.
    """

    vectors: Tensor
    tokens: Tensor | None
    labels: Tensor
    left_out: tuple[str, ...]
    made_from: dict[str, Any]


class FeatureFolder:
    """What ``videomae-fast features`` has written to a folder, found by the videos' paths.

    Raises:
        UsageError: a folder without features, or with features of different weights or settings.
        OutputError: a file in it can't be read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._arrays: dict[str, Path] = {}
        self._failed = set(_failures(folder))
        first: Path | None = None
        self.made_from: dict[str, Any] = {}
        for sidecar in sorted(folder.glob("*.json")):
            told = _read(sidecar)
            array = sidecar.with_suffix(".npy")
            if MADE_FROM not in told or not array.exists():
                continue
            made_from = dict(told[MADE_FROM])
            path = made_from.pop("video")["path"]
            if first is None:
                first, self.made_from = sidecar, made_from
            elif made_from != self.made_from:
                raise UsageError(
                    f"{sidecar} and {first} are of different weights or settings: keep each kind "
                    "of features in a folder of its own"
                )
            self._arrays[_place(path)] = array
        if first is None:
            raise UsageError(
                f"{folder}: holds no features: make them with videomae-fast features WEIGHTS LIST "
                f"{folder}"
            )

    def check_alike(self, other: FeatureFolder) -> None:
        """Raises UsageError where another folder has features of other weights or settings."""
        if self.made_from != other.made_from:
            raise UsageError(
                f"{other.folder} has features of other weights or settings than {self.folder}"
            )

    def of_list(
        self, file: Path, root: Path | None = None, format: ListFormat = "labels"
    ) -> LabelledFeatures:
        """Features of a labelled list's videos, in its order.

        Args:
            file: the list.
            root: folder that its relative paths start from.
            format: of its lines.

        Raises:
            ListError: a line that can't be read, or a video without features and without a reason.
            OutputError: an array can't be read.
        """
        entries = load_list(file, format)
        vectors, tokens, labels, left_out = [], [], [], []
        for index in range(len(entries)):
            entry = entries[index]
            path = os.path.join(root or "", entry.path)
            array = self._arrays.get(_place(path))
            if array is None:
                where = f"{file}:{entry.line}: {path}"
                if _place(path) not in self._failed:
                    raise ListError(
                        f"{where} has no features in {self.folder}: make them with videomae-fast "
                        f"features WEIGHTS {file} {self.folder} (with the same --root)"
                    )
                left_out.append(where)
                continue
            values = torch.from_numpy(_load(array))
            vectors.append(values.flatten(0, -2).mean(0))
            tokens.append(values[len(values) // 2].reshape(-1, values.shape[-1]))
            labels.append(entry.label)
        if not labels:
            raise ListError(f"{file}: none of its {len(entries)} videos could be read")
        alike = len({len(one) for one in tokens}) == 1
        return LabelledFeatures(
            torch.stack(vectors),
            torch.stack(tokens) if alike else None,
            torch.tensor(labels, dtype=torch.int64),
            tuple(left_out),
            self.made_from,
        )


def _place(path: str) -> str:
    """What two spellings of one path have in common."""
    return os.path.abspath(path)


def _failures(folder: Path) -> Iterator[str]:
    """Videos that extraction has named as unreadable."""
    for report in folder.glob("failures*.jsonl"):
        for line in report.read_text(encoding="utf-8").splitlines():
            try:
                yield _place(json.loads(line)["path"])
            except (ValueError, KeyError, TypeError):
                continue  # a line that was cut off names nobody


def _read(sidecar: Path) -> Mapping[str, Any]:
    try:
        told = json.loads(sidecar.read_bytes())
    except (OSError, ValueError) as error:
        raise OutputError(f"{sidecar}: can't be read: {error}") from error
    return told if isinstance(told, dict) else {}


def _load(array: Path) -> NDArray[np.float32]:
    try:
        values: NDArray[np.float32] = np.load(array, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise OutputError(
            f"{array}: can't be read ({error}): remove it, and make it again with features"
        ) from error
    if values.ndim < 2 or not len(values) or values.dtype != np.float32:
        raise OutputError(f"{array}: {values.dtype} {list(values.shape)} are no features")
    return values
