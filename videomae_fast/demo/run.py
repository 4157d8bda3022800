"""From nothing to a pre-trained model and pictures of what it learnt, on two CPU cores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from videomae_fast.data import Source
from videomae_fast.demo.videos import DemoError, find_videos, render_videos, write_list
from videomae_fast.masks import MaskSpec
from videomae_fast.pictures.loss_curves import LossCurve, save_loss_plot
from videomae_fast.pictures.showcase import Shown, show_reconstruction
from videomae_fast.recipes import Data, Masks, Model, Optim, PretrainConfig, Run, Schedule
from videomae_fast.training import load_model, pretrain
from videomae_fast.training.metrics import read_metrics

TRAINED, HELD_OUT = 16, 8
"""Videos rendered to train on, and one of each kind that the model never sees."""

SHOWN_TRAINED, SHOWN_HELD_OUT = (0, 1, 12), (1,)
"""Which of these the pictures show."""

MASK_RATIO = 0.75
"""Less than the papers' 0.9: a picture of 8 × 8 cubes would leave 7 of them, and minutes of
training are too few to make much of these."""

STRIDE = 3
VIDEOS_PER_STEP, SAMPLES = 4, 2
STEPS_PER_EPOCH = 20
STEPS_PER_MINUTE = 600
"""What two server cores do at least."""

CACHE_GB = 0.2
"""For the rendered videos, which take 37 MB and would be decoded hundreds of times each. Videos of
the user's may be too long for any limit, and are decoded clip by clip."""

FALLEN = 0.96
"""The loss at the end must be below this. A model that has learnt nothing predicts 0 and scores
just under 1, the variance of the normalised target; above that is only a bad start."""


@dataclass(frozen=True)
class DemoResult:
    """What the demo leaves behind.

    Attributes:
        checkpoint: folder of the last checkpoint.
        loss_plot, loss_table: PNG and CSV.
        pictures: one reconstruction per shown video.
        first_loss, last_loss: means over the first and the last twentieth of the run.
    """

    checkpoint: Path
    loss_plot: Path
    loss_table: Path
    pictures: list[Shown]
    first_loss: float
    last_loss: float


def demo_config(
    data: Path, *, steps: int, seed: int = 0, cache: Path | None = None
) -> PretrainConfig:
    """A model of about 1.3 million parameters, dual-masked, small enough for minutes on a CPU.

    cache: where decoded videos are kept; None decodes them for each clip.
    """
    epochs = max(1, steps // STEPS_PER_EPOCH)
    return PretrainConfig(
        model=Model(
            image_size=64,
            patch_size=8,
            frames=8,
            width=128,
            depth=4,
            heads=2,
            decoder_width=128,
            decoder_depth=2,
            decoder_heads=2,
        ),
        masks=Masks(encoder_ratio=MASK_RATIO),
        data=Data(
            lists=(Source(data),),
            stride=STRIDE,
            samples=SAMPLES,
            epoch_size=STEPS_PER_EPOCH * VIDEOS_PER_STEP,
            cache=None if cache is None else str(cache),
            cache_gb=CACHE_GB,
            workers=0,
        ),
        # A base rate is for 256 videos per step; this makes the peak 5e-4.
        optim=Optim(
            videos_per_step=VIDEOS_PER_STEP,
            base_lr=5e-4 * 256 / VIDEOS_PER_STEP,
            min_lr=1e-5 * 256 / VIDEOS_PER_STEP,
        ),
        schedule=Schedule(
            epochs=epochs,
            steps=steps if steps % STEPS_PER_EPOCH else None,
            warmup_epochs=min(3, epochs // 4),
        ),
        run=Run(seed=seed, device="cpu", log_every=50, checkpoint_every=500, keep_checkpoints=1),
    )


def run_demo(
    output: Path,
    *,
    videos: Path | None = None,
    steps: int = 3000,
    seed: int = 0,
    log: Callable[[str], None] = print,
) -> DemoResult:
    """Renders (or takes) videos, pre-trains, and draws the loss and reconstructions.

    A demo that was stopped goes on where it was.

    Args:
        output: folder for everything that is made.
        videos: folder with the user's own videos; None renders a set.
        steps: length of the pre-training. It is fixed, not the time, so that the result does not
            depend on the machine's speed.
        seed: of the rendered videos, the weights, crops and masks.
        log: takes each line of progress.

    Raises:
        DemoError: no videos, or the loss has not clearly fallen.
        VideoMAEFastError: whatever stops a pre-training run.
    """
    if steps < STEPS_PER_EPOCH:
        raise DemoError(f"{steps} steps are too few: {STEPS_PER_EPOCH} are the least")
    trained, shown = _videos(output, videos, seed, log)
    data = output / "train.txt"
    write_list(data, trained)
    cache = output / "cache" if videos is None else None
    config = demo_config(data, steps=steps, seed=seed, cache=cache)
    log(
        f"pre-training: {steps} steps of {VIDEOS_PER_STEP} videos × "
        f"{config.data.samples} clips, at most about {steps / STEPS_PER_MINUTE:.2g} minutes "
        "on two idle CPU cores"
    )
    log("the loss begins near 1; stopped with Ctrl-C, the demo goes on with the same command")
    result = pretrain(config, output=output / "run", log=log)
    curve = LossCurve.of(read_metrics(output / "run" / "metrics.jsonl"))
    plot = output / "loss.png"
    table = save_loss_plot(curve, plot, title="VideoMAE V2 pre-training on the demo's videos")
    log(f"drawing the loss and {len(shown)} reconstructions into {output}")
    model, _ = load_model(result.checkpoint)
    pictures = [
        show_reconstruction(
            model,
            path,
            output / "pictures",
            spec=MaskSpec(encoder_ratio=MASK_RATIO, decoder="none"),
            seed=seed,
            stride=STRIDE,
            note=note,
            settings={"shown_video_is": note},
        )
        for path, note in shown
    ]
    first, last = ends(curve)
    done = DemoResult(result.checkpoint, plot, table, pictures, first, last)
    if not last < min(FALLEN, first):
        raise DemoError(
            f"the loss has not clearly fallen: {first:.3f} at the beginning, {last:.3f} at the "
            f"end, where predicting nothing scores about 1 (see {plot}); more --steps help"
        )
    return done


def ends(curve: LossCurve) -> tuple[float, float]:
    """Mean loss over the first and over the last twentieth of the recorded steps."""
    count = max(1, len(curve.loss) // 20)
    return sum(curve.loss[:count]) / count, sum(curve.loss[-count:]) / count


def _videos(
    output: Path, folder: Path | None, seed: int, log: Callable[[str], None]
) -> tuple[list[Path], list[tuple[Path, str]]]:
    """Videos to train on; videos to show, with what has to be said about each."""
    seen, unseen = "a video it was trained on", "a video it was not trained on"
    if folder is not None:
        found = find_videos(folder)
        log(f"{len(found)} videos in {folder}")
        if len(found) < TRAINED:
            return found, [(path, seen) for path in found[: len(SHOWN_TRAINED)]]
        # Every so many: neighbours in the folder are often parts of one recording
        shown = found[:: len(found) // 4][:4]
        trained = [path for path in found if path != shown[-1]]
        return trained, [(path, seen) for path in shown[:-1]] + [(shown[-1], unseen)]
    log(f"rendering {TRAINED + HELD_OUT} videos into {output / 'videos'}")
    every = render_videos(output / "videos", TRAINED + HELD_OUT, seed=seed)
    trained, held_out = every[:TRAINED], every[TRAINED:]
    return trained, [(trained[i], seen) for i in SHOWN_TRAINED] + [
        (held_out[i], unseen) for i in SHOWN_HELD_OUT
    ]
