"""The demo's videos: rendered, or the user's own; which are trained on, labelled, and held out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from videomae_fast.data.files import write_lines
from videomae_fast.demo.motions import MOTIONS
from videomae_fast.demo.settings import FPS, SECONDS, SIDE, Scale
from videomae_fast.demo.videos import find_videos, render_motions, write_list

Log = Callable[[str], None]

HELD_OUT_FROM = 1_000_000
"""Index of the first held-out video, so that a larger set to train on never meets one."""

FEWEST = 16
"""Own videos of which one is held out; of fewer, all are trained on."""


@dataclass(frozen=True)
class Labels:
    """Lists with labels: of few videos to train on and of those that are scored; classes' names."""

    training: Path
    held_out: Path
    classes: Path


@dataclass(frozen=True)
class Material:
    """What the demo works with.

    Attributes:
        pretraining: list of all videos that are trained on.
        trained, held_out: videos whose reconstruction is told, in the order in which they are
            shown.
        labels: None where nobody knows any.
        cache: folder for decoded videos, None where their size is not known.
    """

    pretraining: Path
    trained: list[Path]
    held_out: list[Path]
    labels: Labels | None
    cache: Path | None


def rendered(output: Path, scale: Scale, log: Log) -> Material:
    """Renders motions to ``videos/`` and lists them; files that exist are kept."""
    of_class = len(MOTIONS)
    few, scored = scale.labelled * of_class, scale.held_out * of_class
    count = scale.unlabelled + few + scored
    log(f"rendering {count} videos of {SIDE} × {SIDE} pixels into {output / 'videos'}")

    def render(indices: range) -> list[Path]:
        return render_motions(
            output / "videos", indices, seed=scale.seed, size=SIDE, seconds=SECONDS, fps=FPS
        )

    labelled = render(range(few))
    unlabelled = render(range(few, few + scale.unlabelled))
    unseen = render(range(HELD_OUT_FROM, HELD_OUT_FROM + scored))
    write_list(output / "train.txt", [*labelled, *unlabelled])
    labels = Labels(output / "labelled.txt", output / "held-out.txt", output / "classes.txt")
    for path, videos in ((labels.training, labelled), (labels.held_out, unseen)):
        # Classes take turns in the order of indices, and HELD_OUT_FROM is a multiple of them
        write_list(path, videos, [index % of_class for index in range(len(videos))])
    write_lines(labels.classes, [f"{name}\n" for name in MOTIONS])
    return Material(output / "train.txt", labelled[: len(unseen)], unseen, labels, output / "cache")


def own(output: Path, folder: Path, log: Log) -> Material:
    """The videos of a folder, without labels; one is held out where there are enough.

    Raises:
        DemoError: no such folder, or no video in it.
    """
    found = find_videos(folder)
    log(f"{len(found)} videos in {folder}")
    # Every so many: neighbours in the folder are often parts of one recording
    chosen = found[:: max(1, len(found) // 4)][:4]
    held_out = chosen[-1:] if len(found) >= FEWEST else []
    write_list(output / "train.txt", [path for path in found if path not in held_out])
    trained = [path for path in chosen if path not in held_out]
    return Material(output / "train.txt", trained, held_out, None, None)
