"""What a training clip of fine-tuning costs a core: the official chain and ours, in one run.

    python -m benchmarks augment
    python -m benchmarks augment --videos FOLDER --samples 2 --rounds 30

From a file to normalised fp32 clips in one batch: decoding, RandAugment, crop, flip and erasing of
each sample, as `finetune` does them and as the official data set does (decord, PIL frame by frame,
whole frames in fp32). Both sides get the same draws. Frame numbers have to be the same and pixels
to agree, outside the erased rectangles, within the rounding of fp32 where both decode alike, before
anything is timed; then all work in turns, one thread each. Ours also reads the videos as `prepare`
writes them, and from the cache.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import default_collate

from benchmarks.common.command import command_of, parser_of, results_folder
from benchmarks.common.record import environment, stamp
from benchmarks.official.augmenting import OfficialClips, read_augmented
from benchmarks.reading.contenders import CORE, OnCore, Parts, Timed
from benchmarks.reading.material import (
    PREPARED,
    RAW,
    Material,
    add_material,
    material_of,
    settings_of,
)
from benchmarks.reading.speed import measured
from benchmarks.report.records import finish
from videomae_fast.data.augment.policy import Augmentation, AugmentSettings
from videomae_fast.data.cache import CachedVideos
from videomae_fast.data.decoders import DECODERS, open_video
from videomae_fast.data.reading import ClipRequest, ReadSettings, read
from videomae_fast.data.views.augmented import Augmented

OFFICIAL = "official"
# Of normalised values: decoders may be a grey level apart, which contrast and sharpness amplify
MEAN_APART = 0.05
# The same decoder on both sides leaves what fp32 rounds
SAME_FRAMES_APART = 1e-4


class OfficialChain:
    """decord, PIL, fp32, on one core: see :mod:`benchmarks.official.augmenting`."""

    name, place, converts = OFFICIAL, CORE, False
    forms: tuple[str, ...] = (RAW, PREPARED)

    def __init__(self, reading: ReadSettings) -> None:
        self._reading = reading

    def seconds(self, requests: Sequence[ClipRequest]) -> Parts:
        """Reads the requests to one batch."""
        found = [self.read(request) for request in requests]
        begin = time.perf_counter()
        default_collate([clip for video in found for clip in video.clips])
        return Parts(
            sum(clips.decode_seconds for clips in found),
            sum(clips.view_seconds for clips in found),
            time.perf_counter() - begin,
        )

    def read(self, request: ClipRequest) -> OfficialClips:
        """One request."""
        reading = self._reading
        drawn = partial(plans_of, request, reading)
        return read_augmented(request, reading.frames, reading.size[0], drawn)

    def close(self) -> None:
        """Holds nothing."""


def plans_of(
    request: ClipRequest, reading: ReadSettings, frame: tuple[int, int]
) -> Sequence[Augmentation]:
    """What the request's words draw for its samples."""
    return reading.rule.plans(frame, 0, request.stride, request.words, reading.shape)


@dataclass(frozen=True)
class Difference:
    """How far ours is from the official chain.

    Attributes:
        ids: whether the frame numbers are the same.
        decoder: of ours; the official one is decord.
        most, mean: of normalised values outside the erased rectangles.
        erased: whether both filled the same rectangles, and nothing else, with noise.
    """

    ids: bool
    decoder: str
    most: float
    mean: float
    erased: bool

    @property
    def passed(self) -> bool:
        """The rounding of fp32 with the same decoder, else what decoders differ by."""
        near = self.most <= SAME_FRAMES_APART if self.decoder == "decord" else True
        return self.ids and self.erased and near and self.mean <= MEAN_APART


def compare(
    requests: Sequence[ClipRequest], official: OfficialChain, reading: ReadSettings
) -> Difference:
    """Both sides' clips of the requests, set side by side."""
    ids, erased, most, means = True, True, 0.0, []
    for request in requests:
        theirs, ours = official.read(request), read(request, reading)
        clips = ours.data.view(np.float32)
        ids = ids and theirs.ids == ours.ids
        assert isinstance(request.file, Path)
        with open_video(request.file, reading.decoder) as video:
            frame = video.read([0]).shape[1:3]
        plans = plans_of(request, reading, (frame[0], frame[1]))
        for plan, wanted, clip in zip(plans, theirs.clips, clips, strict=True):
            apart = np.abs(wanted.permute(1, 2, 3, 0).numpy() - clip)
            outside = _outside(plan, apart.shape[1:3])
            if plan.hole is not None:
                erased = erased and bool(apart[:, ~outside].mean() > 0.5)
            most = max(most, float(apart[:, outside].max()))
            means.append(float(apart[:, outside].mean()))
    return Difference(ids, reading.decoder, most, float(np.mean(means)), erased)


def _outside(plan: Augmentation, size: tuple[int, ...]) -> NDArray[np.bool_]:
    """bool [h, w]: False in the hole."""
    found = np.ones(size, dtype=bool)
    if plan.hole is not None:
        top, left, height, width = plan.hole
        found[top : top + height, left : left + width] = False
    return found


def contenders(reading: ReadSettings, cache: CachedVideos | None) -> list[OnCore]:
    """Ours by decoder, and from the cache."""
    device = torch.device("cpu")
    names = [name for name, decoder in DECODERS.items() if decoder.why_not() is None]
    found = [OnCore(replace(reading, decoder=name), device) for name in names]
    return found if cache is None else [*found, OnCore(replace(reading, cache=cache), device)]


def arguments() -> argparse.ArgumentParser:
    """The parser of ``augment``."""
    parser = parser_of("augment", __doc__, seconds=300.0)
    add_material(parser)
    add = parser.add_argument
    add("--rounds", type=int, default=30, help="default: 30")
    add("--clips", type=int, default=4, help="videos read by each in a round; default: 4")
    add("--size", type=int, default=224, help="side of a clip in pixels; default: 224")
    add("--samples", type=int, default=2, help="clips of a decode; default: 2")
    add("--cache-gb", type=float, default=4.0, help="for the decoded videos; default: 4")
    return parser


def checked(
    official: OfficialChain, found: Sequence[OnCore], videos: Material, reading: ReadSettings,
    stride: int,
) -> list[dict[str, Any]]:  # fmt: skip
    """Every one of ours against the official chain, some clips of every video and form."""
    rows = []
    for form, files in videos.forms.items():
        requests = videos.requests(form, range(2 * len(files)), reading.samples, stride)
        for contender in (one for one in found if form in one.forms):
            result = compare(requests, official, contender.reading)
            row = {"contender": contender.name, "form": form, **asdict(result)}
            rows.append({**row, "passed": result.passed})
            print(f"{contender.name}, {form}: {'equal' if result.passed else 'NOT EQUAL'} {result}")
    return rows


def main(argv: Sequence[str]) -> int:
    """Checks, measures, and writes record, table and plot.

    Returns:
        1 where something is not read as the official chain reads it.
    """
    parser = arguments()
    args = parser.parse_args(argv)
    if (why := DECODERS["decord"].why_not()) is not None:
        parser.error(f"the official chain can't run: {why}")
    if min(args.count, args.rounds, args.clips, args.samples) < 1:
        parser.error("--count, --rounds, --clips and --samples must be at least 1")
    torch.set_num_threads(1)
    rule = Augmented("dense", AugmentSettings())
    reading = ReadSettings(args.frames, (args.size, args.size), args.samples, "pyav", rule=rule)
    with tempfile.TemporaryDirectory() as folder:
        videos = material_of(args, Path(folder))
        official, ours = OfficialChain(reading), contenders(reading, videos.cache)
        record: dict[str, Any] = {
            "kind": "augmentation",
            **environment("cpu", command_of("augment", argv)),
            "settings": {**settings_of(args, args.clips), "augment": asdict(rule.settings)},
            **videos.record(),
            "checks": checked(official, ours, videos, reading, args.stride),
            "runs": [],
        }
        if all(row["passed"] for row in record["checks"]):
            everyone: list[Timed] = [official, *ours]
            cases = [(one, form) for form in videos.forms for one in everyone if form in one.forms]
            record["runs"] = measured(cases, videos, args, args.clips)
        for one in ours:
            one.close()
    return finish(record, results_folder(args) / f"augment-cpu-{stamp()}.json")
