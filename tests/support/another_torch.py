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

from PIL import Image

from tests.support.runs import ROOT, TINY, TORCHRUN, losses, options
from tests.support.videos import texture

STEPS: Final = 8
PICTURES: Final = "img_{:05}.png"
SMALLEST: Final[dict[str, Any]] = {
    **TINY, "image_size": 16, "patch_size": 8, "width": 16, "decoder_width": 8, "epochs": 2,
    "warmup_epochs": 1, "videos_per_step": 2, "samples_per_video": 1, "checkpoint_every": 4,
    "log_every": 1, "mlp_ratio": 2.0,
}  # fmt: skip


def clips(folder: Path) -> Path:
    """The list of eight clips beside it, named from there: pictures, which are the same wherever
    they are written, as x264's videos are not."""
    lines = []
    for index in range(8):
        (folder / str(index)).mkdir()
        for number in range(12 + index):
            picture = Image.fromarray(texture(number, 48, 40))
            picture.save(folder / str(index) / PICTURES.format(number + 1))
        lines.append(f"{index} 1 {12 + index}\n")
    path = folder / "train.csv"
    path.write_text("".join(lines))
    return path


def main(target: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clips(folder)
        words = [*options(**SMALLEST, data=f"train.csv,pattern={PICTURES}"), "--output", "run"]
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
