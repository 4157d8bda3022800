"""The example for SLURM on a real cluster of one machine (Debian's ``slurm-wlm``)."""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path

import pytest

from tests.support.runs import ROOT, losses
from tests.support.slurm import DAEMONS, LIMIT, cluster
from tests.support.videos import texture, write_video

RECIPE = """\
[model]
size = "small"
image_size = 32
frames = 4
width = 32
depth = 1
heads = 2
decoder_width = 16
decoder_depth = 1
decoder_heads = 1
[data]
format = "plain"
workers = 0
[optim]
videos_per_step = 4
[schedule]
epochs = 6
warmup_epochs = 1
[run]
log_every = 1
"""
EXAMPLE = ROOT / "docs" / "examples" / "slurm.sh"
STOPS = """\
import os

if "RANK" in os.environ and "SLURM_RESTART_COUNT" not in os.environ:
    from tests.support.accidents import Accident

    for rank in range(2):
        Accident("wait", rank, 3).arrange()
"""
"""Each rank of the job's first start waits in a step for the signal."""


@pytest.mark.skipif(
    not all(map(shutil.which, (*DAEMONS, "sbatch"))), reason="needs SLURM (slurm-wlm)"
)
def test_a_job_saves_before_its_time_is_up_and_goes_on(tmp_path: Path) -> None:
    videos, output, log = tmp_path / "train.csv", tmp_path / "run", tmp_path / "log"
    for number in range(4):
        write_video(tmp_path / f"{number}.mp4", 12, size=(48, 40), make=texture)
    videos.write_text("".join(f"{tmp_path}/{number}.mp4 0 -1\n" for number in range(4)))
    (tmp_path / "tiny.toml").write_text(RECIPE)
    (tmp_path / "sitecustomize.py").write_text(STOPS)
    with cluster(tmp_path, gpus=2) as slurm:
        slurm.environment |= {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": f"{tmp_path}:{ROOT}",
            "OMP_NUM_THREADS": "1",
            "RECIPE": str(tmp_path / "tiny.toml"),
            "DATA": str(videos),
            "OUTPUT": str(output),
        }
        small = ("--nodes=1", "--gpus-per-node=2", "--cpus-per-task=1", "--time=30")
        given = (*small, f"--output={log}", f"--chdir={ROOT}")
        job = slurm.call("sbatch", "--parsable", *given, str(EXAMPLE))
        deadline = time.monotonic() + LIMIT
        while not log.exists() or "step 3/" not in log.read_text():
            assert time.monotonic() < deadline, slurm.told()
            time.sleep(0.2)
        # As SLURM does 120 s before the end, which it looks for twice a minute
        slurm.call("scancel", "--batch", "--signal=TERM", job)
        while (state := slurm.state(job)) in ("PENDING", "RUNNING", "COMPLETING"):
            assert time.monotonic() < deadline, slurm.told()
            time.sleep(0.2)
        said = log.read_text()
    assert state == "COMPLETED", said
    assert "on 2 process(es), cpu; from the beginning" in said
    assert "states sharded over 2 processes, copies: 1" in said
    assert "stopped by SIGTERM with 4 of" in said
    assert f"resumed from {output}/checkpoints/step-00000004" in said
    assert [step for step, *_ in losses(output)] == list(range(6))
