"""Features for temporal detection, against the official script: windows per second.

    python -m benchmarks features --size base --stride 4 --threads 2

The same video file and weights to features of all its windows, from opening the file on. Official:
16 frames decoded anew for each window, a batch of one, eager PyTorch. Ours: as ``videomae-fast
features --preset`` does it. Features have to be equal to 1e-5 first; what differs is not timed.
Without --video one is rendered, as a camera or a site would store it (H.264, long GOP).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.common.command import command_of, parser_of, results_folder
from benchmarks.common.processor import processor_name
from benchmarks.common.record import environment, stamp, write
from benchmarks.common.workload import TINY, Workload
from benchmarks.measure.timing import Summary, times_in_turns
from benchmarks.official.model import OfficialClassifier
from benchmarks.official.windows import LENGTH, official_windows
from benchmarks.reading.material import Rendering, render
from videomae_fast import MAEConfig, VideoClassifier
from videomae_fast.data.decoders import open_video
from videomae_fast.evaluation.features import FeatureSettings, preset, usual_batch, video_features
from videomae_fast.models.frozen import FrozenFeatures

TOLERANCE = 1e-5
Run = Callable[[], NDArray[np.float32]]


def arguments() -> argparse.ArgumentParser:
    """The parser of ``features``."""
    parser = parser_of("features", __doc__, tiny=True, size="base", threads=2, repeats=3, seed=0)
    parser.add_argument("--batch", type=int, help="windows of ours at once; default: its own")
    parser.add_argument("--stride", type=int, default=4, help="default: %(default)s")
    parser.add_argument("--video", type=Path, help="default: one that is rendered")
    parser.add_argument(
        "--windows", type=int, default=32, help="of the rendered video; default: %(default)s"
    )
    parser.add_argument(
        "--frame-size", type=int, nargs=2, default=(340, 256), metavar=("WIDTH", "HEIGHT"),
        help="of the rendered video; default: 340 256",
    )  # fmt: skip
    return parser


def contenders(
    config: MAEConfig, video: Path, settings: FeatureSettings, *, batch: int, seed: int
) -> dict[str, Run]:
    """Official and ours by name, with the same random weights."""
    torch.manual_seed(seed)
    ours = VideoClassifier(config, 710).eval()
    with torch.no_grad():
        for parameter in ours.parameters():
            if parameter.ndim == 1:  # biases and norms are random too, so that each of them counts
                parameter.add_(0.02 * torch.randn_like(parameter))
    official = OfficialClassifier(config, 710).eval()
    official.load_state_dict(ours.state_dict())
    stride, size = settings.windows.stride, settings.size
    frozen = FrozenFeatures(ours)
    frozen.pack(LENGTH, size, batch)

    def by_ours() -> NDArray[np.float32]:
        with open_video(video) as opened:
            return video_features(frozen, opened, settings, batch=batch)

    return {"official": lambda: official_windows(official, video, stride, size), "ours": by_ours}


def difference(official: NDArray[np.float32], ours: NDArray[np.float32]) -> float:
    """The largest, of a feature's size where that is more than 1.

    Raises:
        RuntimeError: more than :data:`TOLERANCE`, or other shapes.
    """
    if official.shape != ours.shape:
        raise RuntimeError(f"official features are {official.shape}, ours {ours.shape}")
    apart = float((np.abs(official - ours) / np.maximum(np.abs(official), 1)).max())
    if not apart <= TOLERANCE:
        raise RuntimeError(f"features differ by {apart:.1e}: not timed")
    return apart


def measure(runs: dict[str, Run], repeats: int) -> dict[str, Any]:
    """Checks, then times in turns.

    Returns:
        windows, width, their difference, and for each contender its times and windows per second.
    """
    found = {name: run() for name, run in runs.items()}
    apart = difference(found["official"], found["ours"])
    count, width = found["ours"].shape
    rows = []
    for name, seconds in times_in_turns(runs, torch.device("cpu"), repeats, 0).items():
        summary = Summary.of(seconds)
        rows.append(
            {
                "contender": name,
                "times": seconds,
                "seconds": asdict(summary),
                "windows_per_s": count / summary.median,
            }
        )
    official, ours = (row["windows_per_s"] for row in rows)
    return {
        "windows": count,
        "width": width,
        "difference": apart,
        "rows": rows,
        "speedup": ours / official,
    }


def table(record: dict[str, Any]) -> str:
    """Markdown: windows per second of both."""
    machine, video = record["machine"], record["video"]
    lines = [
        f"{record['size']}, {record['windows']} windows of {LENGTH} frames every "
        f"{record['stride']}, video {video['width']} x {video['height']}, "
        f"{processor_name(machine)}, {machine['threads']} threads; {record['date'][:10]}; "
        f"features equal to {record['difference']:.1e}",
        "",
        "| | windows/s | of the official |",
        "|-|-:|-:|",
    ]
    official = record["rows"][0]["windows_per_s"]
    for row in record["rows"]:
        speed = row["windows_per_s"]
        lines.append(f"| {row['contender']} | {speed:.2f} | {speed / official:.2f}× |")
    return "\n".join(lines)


def described(path: Path) -> dict[str, Any]:
    """Of a video its name, frames and size."""
    with open_video(path) as video:
        height, width = video.read([0]).shape[1:3]
        return {
            "name": path.name,
            "bytes": path.stat().st_size,
            "frames": video.frame_count,
            "width": width,
            "height": height,
        }


def main(argv: Sequence[str]) -> int:
    """Writes the record and a table.

    Returns:
        0; 1 where features differ.
    """
    args = arguments().parse_args(argv)
    torch.set_num_threads(args.threads)
    batch = args.batch or usual_batch("cpu")
    config, size = (TINY, "tiny") if args.tiny else (MAEConfig.from_size(args.size), args.size)
    settings = preset("thumos14")
    rule = replace(settings.windows, stride=args.stride)
    side = config.image_size
    settings = replace(settings, windows=rule, size=(side, side) if isinstance(side, int) else side)
    if args.tiny:
        config = replace(config, frames=LENGTH)
    with tempfile.TemporaryDirectory() as folder:
        video = args.video
        if video is None:
            frames = LENGTH + args.stride * (args.windows - 1)
            width, height = args.frame_size
            video = render(Rendering(Path(folder) / "rendered.mp4", 0, frames, width, height))
        about = described(video)
        runs = contenders(config, video, settings, batch=batch, seed=args.seed)
        try:
            measured = measure(runs, args.repeats)
        except RuntimeError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    record = {
        "kind": "features",
        **environment("cpu", command_of("features", argv)),
        "size": size,
        "workload": Workload(config, batch, seed=args.seed).describe(),
        "stride": args.stride,
        "video": about,
        **measured,
    }
    path = write(record, results_folder(args) / f"features-{size}-cpu-{stamp()}.json")
    text = table(record)
    path.with_suffix(".md").write_text(text + "\n", encoding="utf-8")
    print(f"{text}\n{path}")
    return 0
