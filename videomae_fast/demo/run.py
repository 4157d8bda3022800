"""From nothing to a pre-trained model, what it sees, and what that is worth, on two CPU cores."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from videomae_fast.data.files import write_lines
from videomae_fast.demo.classifying import ARMS, Classified, classify
from videomae_fast.demo.material import Material, own, rendered
from videomae_fast.demo.motions import MOTIONS
from videomae_fast.demo.reconstructing import Losses, losses, show, spread
from videomae_fast.demo.settings import STEPS_PER_EPOCH, Scale, pretraining_config
from videomae_fast.demo.videos import DemoError
from videomae_fast.pictures.accuracies import save_accuracies
from videomae_fast.pictures.loss_curves import LossCurve, save_loss_plot
from videomae_fast.pictures.showcase import Shown
from videomae_fast.tasks.pretraining import build_model, pretrain
from videomae_fast.tasks.trained import load_model
from videomae_fast.training.metrics import read_metrics

Log = Callable[[str], None]

FALLEN = 0.98
"""The loss at the end must be below this share of what predicting nothing scores."""

SEEN, UNSEEN = "a video it was trained on", "a video it was not trained on"


@dataclass(frozen=True)
class DemoResult:
    """What the demo leaves behind.

    Attributes:
        output: folder of all of it.
        checkpoint: folder of the last checkpoint of pre-training.
        loss_plot: PNG; its numbers are in the CSV beside it.
        pictures: reconstructions, of held-out videos first.
        first_loss, last_loss: means over the first and the last twentieth of the run.
        trained, held_out: reconstruction losses of videos that were trained on and of such that
            were not; None without any.
        classified: of each arm; empty where the videos have no labels.
        accuracies: PNG of their accuracies by epoch; None without them.
        labelled: videos whose label was told.
    """

    output: Path
    checkpoint: Path
    loss_plot: Path
    pictures: list[Shown]
    first_loss: float
    last_loss: float
    trained: Losses
    held_out: Losses | None
    classified: dict[str, Classified]
    accuracies: Path | None
    labelled: int

    @property
    def chance(self) -> float:
        """Accuracy of guessing."""
        return 1 / len(MOTIONS)

    def figures(self) -> dict[str, Any]:
        """All numbers, as JSON takes them."""
        return {
            "first_loss": self.first_loss,
            "last_loss": self.last_loss,
            "reconstruction": {
                "trained_on": asdict(self.trained),
                "held_out": None if self.held_out is None else asdict(self.held_out),
            },
            "classes": {
                arm: {
                    "accuracy": one.accuracy,
                    "videos": one.result.videos,
                    "by_epoch": one.by_epoch,
                    "confusion": one.result.confusion.tolist(),
                }
                for arm, one in self.classified.items()
            },
            "labelled_videos": self.labelled,
            "chance": self.chance,
        }


def run_demo(
    output: Path, *, scale: Scale, videos: Path | None = None, log: Log = print
) -> DemoResult:
    """Renders (or takes) videos, pre-trains, reconstructs, and classifies motions.

    A demo that was stopped goes on where it was. Lengths are steps, not times, so that the result
    does not depend on the machine's speed.

    Args:
        output: folder for everything that is made.
        scale: how much of everything.
        videos: folder with the user's own videos, of which no classes are known; None renders.
        log: takes each line of progress.

    Raises:
        DemoError: no videos, or the model has not clearly learnt to reconstruct.
        VideoMAEFastError: whatever stops a run.
    """
    if scale.steps < STEPS_PER_EPOCH:
        raise DemoError(f"{scale.steps} steps are too few: {STEPS_PER_EPOCH} are the least")
    material = rendered(output, scale, log) if videos is None else own(output, videos, log)
    config = pretraining_config(scale, material.pretraining, cache=material.cache)
    log(
        f"pre-training: {scale.steps} steps of {scale.videos_per_step} videos × {scale.samples} "
        "clips; stopped with Ctrl-C, the demo goes on with the same command"
    )
    trained = pretrain(config, output=output / "run", log=log)
    curve = LossCurve.of(read_metrics(output / "run" / "metrics.jsonl"))
    plot = output / "loss.png"
    save_loss_plot(curve, plot, title="VideoMAE V2 pre-training on the demo's videos")
    before, after = build_model(config).eval(), load_model(trained.checkpoint)[0]
    log(f"reconstructing {len(material.trained) + len(material.held_out)} videos, before and after")
    seen = losses(before, after, material.trained, scale)
    unseen = losses(before, after, material.held_out, scale) if material.held_out else None
    pictures = [
        one
        for videos_of, note in ((material.held_out, UNSEEN), (material.trained, SEEN))
        for one in show(before, after, spread(videos_of), scale, output / "pictures", note)
    ]
    check_learnt(seen, unseen, plot)
    classified = _classified(material, scale, output, log)
    first, last = ends(curve)
    accuracies = None
    if classified:
        tops = {arm: one.by_epoch for arm, one in classified.items()}
        title = f"{len(MOTIONS)} motions, {scale.labelled} labelled videos of each"
        accuracies = output / "classes" / "accuracy.png"
        save_accuracies(accuracies, tops, chance=1 / len(MOTIONS), title=title)
    done = DemoResult(
        output, trained.checkpoint, plot, pictures, first, last, seen, unseen, classified,
        accuracies, scale.labelled * len(MOTIONS) if classified else 0,
    )  # fmt: skip
    write_lines(output / "demo.json", [json.dumps(done.figures(), indent=2) + "\n"])
    return done


def _classified(material: Material, scale: Scale, output: Path, log: Log) -> dict[str, Classified]:
    if material.labels is None or material.cache is None:
        log("own videos have no labels: no motions are classified")
        return {}
    found = {}
    for arm in ARMS:
        log(
            f"{len(MOTIONS)} motions from {scale.labelled} labelled videos of each, {arm}: "
            f"{scale.finetuning_steps} steps"
        )
        found[arm] = classify(
            arm, scale, material.labels, material.cache, output / "run", output / "classes", log
        )
    return found


def check_learnt(trained: Losses, held_out: Losses | None, plot: Path) -> None:
    """Raises DemoError where reconstructions are not clearly better than predicting nothing."""
    for found, what in ((trained, "trained on"), (held_out, "not trained on")):
        if found is not None and not found.after < FALLEN * found.nothing:
            raise DemoError(
                f"videos that it was {what} are reconstructed with a loss of {found.after:.3f}, "
                f"where predicting nothing scores {found.nothing:.3f}: the model has not clearly "
                f"learnt (see {plot}); more --steps help"
            )


def ends(curve: LossCurve) -> tuple[float, float]:
    """Mean loss over the first and over the last twentieth of the recorded steps."""
    count = max(1, len(curve.loss) // 20)
    return sum(curve.loss[:count]) / count, sum(curve.loss[-count:]) / count
