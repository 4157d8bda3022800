"""Checkpoints of sharded runs: each process writes its part, while the next steps are made.

The folder is as whole as any other: it has another name until every process's file is on the disk,
and the main process has written what their checksums are.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch.distributed as dist
from torch import Tensor

from videomae_fast.errors import VideoMAEFastError
from videomae_fast.interop.weights.run_folders import MODEL, SHARDED, SHARDS, fingerprint
from videomae_fast.training.checkpoint.folder import (
    begin,
    cannot_write,
    commit,
    partial_of,
    roll_back,
    tidy,
    write_model,
)
from videomae_fast.training.errors import CheckpointError, RankFailedError
from videomae_fast.training.parallel.fsdp import local, whole_tensors
from videomae_fast.training.parallel.peers import stands_still
from videomae_fast.training.parallel.world import World

_NAME: Final = "videomae_fast-checkpoint"


class ShardedWriter:
    """Writes one checkpoint at a time behind the run's back. Every process has one, and all call
    its methods in the same order.

    It has a group of its own: what it agrees on in its thread must not meet what the run does.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self._group = dist.new_group(backend="gloo", group_desc="checkpoint")
        self._thread: threading.Thread | None = None
        self._error: VideoMAEFastError | None = None

    def start(
        self,
        folder: Path,
        model: Mapping[str, Tensor],
        optimizer: Mapping[str, Tensor],
        state: Mapping[str, Any],
        *,
        keep: int | None,
    ) -> None:
        """Takes copies of everything and returns; see :func:`save` for the arguments.

        Raises:
            CheckpointError: the checkpoint before this one could not be written.
            RankFailedError: another process was gone before it was.
        """
        from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
        from torch.distributed.checkpoint.state_dict_saver import async_save

        self.wait()
        self._begin(folder)
        weights = {
            name: tensor.clone() for name, tensor in whole_tensors(model, self.world).items()
        }
        mine = sum(t.numel() * t.element_size() for t in map(local, optimizer.values()))
        writer = HuggingFaceStorageWriter(str(partial_of(folder) / SHARDS), save_distributed=True)
        writing = async_save(dict(optimizer), storage_writer=writer, process_group=self._group)
        args = (folder, weights, writing, dict(state), keep, mine)
        self._thread = threading.Thread(target=self._finish, args=args, name=_NAME, daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Until the checkpoint is there.

        Raises:
            CheckpointError: it could not be written; what was there before is untouched.
            RankFailedError: another process was waited for, for too long, or is gone.
        """
        if self._thread is not None:
            with self.world.doing("waiting for the checkpoint to be written", waits=True):
                limit = self.world.patience
                self._thread.join(limit)
                late = self._thread.is_alive()
                if (late or self._error is not None) and (who := self.world.waits_for()):
                    raise RankFailedError(stands_still(who))
                if late:
                    raise RankFailedError(
                        f"the checkpoint is not written after {limit:.0f} s: give it longer with "
                        "--group-timeout, or a faster disk"
                    )
            self._thread = None
        self._raise()

    def _raise(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _begin(self, folder: Path) -> None:
        """Makes the folder, in the main process; what went wrong is everybody's error."""
        said = None
        if self.world.is_main:
            try:
                (begin(folder) / SHARDS).mkdir()
            except OSError as error:
                said = cannot_write(folder, 0, error)
        said = self.world.from_main(said)
        if said is not None:
            raise CheckpointError(said)

    def _finish(
        self,
        folder: Path,
        weights: Mapping[str, Tensor],
        writing: Any,
        state: Mapping[str, Any],
        keep: int | None,
        mine: int,
    ) -> None:
        """In a thread of each process."""
        partial, found, said = partial_of(folder), {}, None
        try:
            writing.result()
            for path in (partial / SHARDS).glob(f"shard-{self.world.rank + 1:05d}-*.safetensors"):
                found[f"{SHARDS}/{path.name}"] = fingerprint(path, sync=True)
            if self.world.is_main:
                found[MODEL] = write_model(partial, weights, state)
        except Exception as error:  # each is to be told to all processes, which wait here
            said = _first_line(error)
        needed = mine + sum(t.numel() * t.element_size() for t in weights.values())
        try:
            parts: list[Any] = [None] * self.world.size
            dist.all_gather_object(parts, (found, said, needed), group=self._group)
            said = next(
                (f"rank {r}: {p[1]}" for r, p in enumerate(parts) if p[1] is not None), None
            )
            needed = sum(part[2] for part in parts)
            if self.world.is_main:
                said = self._commit(folder, state, parts, said, keep)
            box = [said]
            dist.broadcast_object_list(box, src=0, group=self._group)
            said = box[0]
        except Exception as error:
            self._error = RankFailedError(
                "another process of the run ended without a word (killed?), or can't be reached "
                f"any more, while checkpoint {folder} was written; older ones are untouched: "
                f"{_first_line(error)}"
            )
            return
        if said is not None:
            self._error = CheckpointError(cannot_write(folder, needed, said))

    def _commit(
        self,
        folder: Path,
        state: Mapping[str, Any],
        parts: list[Any],
        said: str | None,
        keep: int | None,
    ) -> str | None:
        if said is None:
            files = {name: print_ for part in parts for name, print_ in part[0].items()}
            try:
                commit(partial_of(folder), folder, {"format": SHARDED, **state}, files)
            except OSError as error:
                said = str(error)
        if said is not None:
            roll_back(folder)
        else:
            tidy(folder, keep)
        return said


def _first_line(error: Exception) -> str:
    """Its class, and the first line of what it says."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no more'])[0]}"
