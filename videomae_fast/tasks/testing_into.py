"""Where a test writes: a folder that one test at a time has, from any number of processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from videomae_fast.data.files import make_folder
from videomae_fast.data.lock import FolderLock
from videomae_fast.training.parallel.launcher import ending_with_launcher
from videomae_fast.training.parallel.peers import AGREED, failing_together
from videomae_fast.training.parallel.world import World


@contextmanager
def testing_into(output: Path, device: str) -> Iterator[World]:
    """The processes of a test, together from here on, and the folder held for them.

    Args:
        output: folder, made where missing.
        device: "auto", "cpu" or "cuda".

    Raises:
        UsageError: another test writes to the folder.
        RankFailedError: another process failed.
    """
    with ending_with_launcher():
        world = World.start(device)
        together, lock = False, None
        try:
            with failing_together(world.store, world.rank):
                make_folder(output)
                if world.is_main:
                    lock = FolderLock(output, "tests")
                yield world
            together = True
        except AGREED:
            together = True
            raise
        finally:
            if lock is not None:
                lock.close()
            world.close(together=together)
