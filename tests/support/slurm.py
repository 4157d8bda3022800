"""A SLURM cluster of this machine alone, with GPUs that it only counts."""

from __future__ import annotations

import getpass
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

LIMIT: Final = 300.0
"""Seconds that a job may take; many times what any takes."""

_CONFIG: Final = """\
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={daemon}
AuthType=auth/none
AuthInfo=cred_expire=5
CredType=cred/none
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
GresTypes=gpu
SchedulerParameters=sched_interval=1,bf_interval=1
AccountingStorageType=accounting_storage/none
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} Gres=gpu:{gpus}
PartitionName=all Nodes={host} Default=YES State=UP
"""
DAEMONS: Final = ("slurmctld", "slurmd")


class Cluster:
    """As a test sees it.

    Args:
        folder: of its files.
        environment: in which SLURM's commands find it.
    """

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder, self.environment = folder, environment

    def told(self) -> str:
        """What it says itself."""
        return "".join((self.folder / f"{daemon}.log").read_text() for daemon in DAEMONS)

    def call(self, *words: str) -> str:
        """What one of SLURM's commands prints."""
        done = subprocess.run(
            words, env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
        return done.stdout.strip()

    def state(self, job: str) -> str:
        """PENDING, RUNNING, COMPLETED or another one."""
        shown = dict(
            word.partition("=")[::2] for word in self.call("scontrol", "show", "job", job).split()
        )
        return shown["JobState"]


@contextmanager
def cluster(folder: Path, gpus: int) -> Iterator[Cluster]:
    """A cluster while entered. folder: takes its files; gpus: of its one machine."""
    ports = []
    with socket.socket() as one, socket.socket() as other:
        for probe in (one, other):
            probe.bind(("", 0))
            ports.append(probe.getsockname()[1])
    path = folder / "slurm.conf"
    names = {"host": socket.gethostname().partition(".")[0], "user": getpass.getuser()}
    numbers = {"controller": ports[0], "daemon": ports[1], "cpus": os.cpu_count(), "gpus": gpus}
    path.write_text(_CONFIG.format(folder=folder, **names, **numbers))
    for number in range(gpus):
        (folder / f"gpu{number}").touch()
    (folder / "gres.conf").write_text(f"Name=gpu File={folder}/gpu[0-{gpus - 1}]\n")
    for name in ("state", "spool"):
        (folder / name).mkdir()
    environment = {**os.environ, "SLURM_CONF": str(path)}
    try:
        for daemon in DAEMONS:
            subprocess.run([daemon, "-f", str(path)], env=environment, check=True)
        yield Cluster(folder, environment)
    finally:
        for daemon in DAEMONS:
            _end(folder / f"{daemon}.pid")


def _end(path: Path) -> None:
    if path.exists():
        process = int(path.read_text())
        os.kill(process, signal.SIGTERM)
        deadline = time.monotonic() + 30
        while Path(f"/proc/{process}").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
