"""A sharded run's state as this torch writes it: ``python -m tests.support.another_torch FOLDER``.

``tests/golden/torch_2.11`` was made by it under torch 2.11. Two processes make half of a tiny run;
how one process goes on from there is in ``losses.json``. Give the folder that takes both.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from tests.support.runs import ROOT, TINY, TORCHRUN, losses, options
from tests.support.videos import texture, write_video

STEPS: Final = 8
SMALLEST: Final[dict[str, Any]] = {
    **TINY, "image_size": 16, "patch_size": 8, "width": 16, "decoder_width": 8, "epochs": 2,
    "warmup_epochs": 1, "videos_per_step": 2, "samples_per_video": 1, "checkpoint_every": 4,
    "log_every": 1, "mlp_ratio": 2.0,
}  # fmt: skip


def clips(folder: Path) -> Path:
    """The list of eight clips beside it, named from there."""
    for index in range(8):
        write_video(folder / f"{index}.mp4", 12 + index, size=(48, 40), make=texture)
    path = folder / "train.csv"
    path.write_text("".join(f"{index}.mp4 0 -1\n" for index in range(8)))
    return path


def main(target: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clips(folder)
        words = [*options(**SMALLEST, data="train.csv"), "--output", "run"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        run = [sys.executable, *TORCHRUN, "-m", "videomae_fast", "pretrain", *words]
        subprocess.run([*run, "--shard", "all"], cwd=folder, env=environment, check=True)
        half = f"step-{STEPS // 2:08d}"
        shutil.copytree(folder / "run" / "checkpoints" / half, target / half)
        shutil.rmtree(folder / "run" / "checkpoints" / f"step-{STEPS:08d}")
        alone = [sys.executable, "-m", "videomae_fast", "pretrain", *words]
        subprocess.run(alone, cwd=folder, env=environment, check=True)
        (target / "losses.json").write_text(json.dumps(losses(folder / "run")[STEPS // 2 :]) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
