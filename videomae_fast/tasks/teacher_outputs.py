"""What a teacher says of fixed views, computed once into a folder and read in every epoch.

The folder has ``outputs.json``, which says what the outputs are made from, and parts of about equal
length: safetensors with ``logits`` [videos, samples, classes], in the dtype in which the teacher
gave them, and ``ok`` [videos], False where a video could not be read. Each part is whole or not
there, so that a stopped pass goes on where it was.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from videomae_fast.data.errors import FailureShareError, OutputError
from videomae_fast.data.files import make_folder, write_lines
from videomae_fast.data.fixed_views import FixedViews
from videomae_fast.data.loader.pipeline import StepDraws, once_loader
from videomae_fast.data.lock import FolderLock
from videomae_fast.errors import UsageError
from videomae_fast.models.config import MAEConfig
from videomae_fast.recipes.distillation import DistillConfig
from videomae_fast.tasks.engine import crop_on
from videomae_fast.tasks.teacher import Said, Teacher
from videomae_fast.training.checkpoint import Log
from videomae_fast.training.errors import InterruptedRunError
from videomae_fast.training.parallel.world import World
from videomae_fast.training.signals import StopRequest
from videomae_fast.training.task import Place

ABOUT: Final = "outputs.json"
FORMAT: Final = 1
LEAST_ROWS: Final = 1024
"""Videos of a part, but for the last one."""
MOST_PARTS: Final = 256
"""All of them are open while a run reads them."""


def made_from(
    config: DistillConfig,
    dataset: FixedViews,
    digest: str,
    teacher: MAEConfig,
    *,
    classes: int,
    bf16: bool,
    device: torch.device,
) -> dict[str, Any]:
    """All that decides what a teacher's outputs are, as plain values.

    Args:
        config: of the run.
        dataset: the run's fixed views.
        digest: of the teacher's weights.
        teacher: shape of the teacher, with what its positions are for.
        classes: of its head.
        bf16: whether it computes in bf16.
        device: of the run.

    Raises:
        UsageError: the run would draw the noise of erased holes elsewhere than the pass does.
    """
    erased = config.augment.erase > 0
    on_device = crop_on(config.data, device) == "device"
    if erased and on_device != (device.type == "cuda"):
        raise UsageError(
            f"data.crop_on {config.data.crop_on}: stored outputs are made of clips that are "
            "cropped where auto does it, and the noise in erased holes differs between the two: "
            "leave crop_on at auto, or set erase to 0"
        )
    return {
        "format": FORMAT,
        "teacher": {
            "sha256": digest,
            "frames": teacher.frames,
            "image_size": teacher.image_size,
            "precision": "bf16" if bf16 else "fp32",
            "classes": classes,
        },
        "lists": [
            {
                "entries": len(source),
                "sha256": _entries_digest(source.entries),
                "stride": source.source.stride or dataset.stride,
                "pattern": source.source.name_pattern,
            }
            for source in dataset.sources
        ],
        "views": {
            "views": dataset.views,
            "samples": dataset.samples,
            "frames": dataset.frames,
            "size": list(dataset.size),
            "seed": dataset.seed,
            "sampling": config.data.sampling,
            "noise": device.type if erased else None,
            **asdict(config.augment),
        },
    }


def _entries_digest(entries: Any) -> str:
    """Of the paths and frames of a list, in order; not of labels, which outputs don't depend on."""
    digest = hashlib.sha256()
    for index in range(len(entries)):
        entry = entries[index]
        digest.update(os.fsencode(f"{entry.path}\0{entry.start}\0{entry.total}\n"))
    return digest.hexdigest()


@dataclass(frozen=True)
class Rows:
    """The outputs of all views of all videos, in parts.

    Attributes:
        folder: that they lie in.
        made_from: as :func:`made_from` gives it.
        count: videos times views.
        shape: of a row, (samples, classes).
    """

    folder: Path
    made_from: Mapping[str, Any]
    count: int
    shape: tuple[int, int]

    @property
    def size(self) -> int:
        """Rows of a part."""
        return max(LEAST_ROWS, -(-self.count // MOST_PARTS))

    @property
    def parts(self) -> int:
        return -(-self.count // self.size)

    def file(self, part: int) -> Path:
        return self.folder / f"part-{part:05d}.safetensors"

    def rows(self, part: int) -> range:
        return range(part * self.size, min(self.count, (part + 1) * self.size))

    def digest(self) -> str:
        """Of what the outputs are made from: each part names it."""
        return hashlib.sha256(json.dumps(self.made_from, sort_keys=True).encode()).hexdigest()

    def check(self) -> None:
        """Checks that the folder is of these outputs, or may become so; writes nothing.

        Raises:
            UsageError: it holds outputs of something else, or something else.
        """
        about = self.folder / ABOUT
        if about.exists():
            self._check_same(about, json.loads(json.dumps(self.made_from)))
        elif self.folder.is_dir() and any(
            not each.name.startswith(".") for each in self.folder.iterdir()
        ):
            raise UsageError(
                f"--teacher-outputs {self.folder}: holds other files and no {ABOUT}: give a new or "
                "an empty folder"
            )

    def claim(self) -> list[int]:
        """Makes the folder one of these outputs, where it is none yet; gives the missing parts.

        Raises:
            UsageError: it holds outputs of something else, or something else.
            OutputError: it can't be written.
        """
        make_folder(self.folder)
        self.check()
        about = self.folder / ABOUT
        if not about.exists():
            write_lines(about, [json.dumps(self.made_from, indent=1) + "\n"])
        return [part for part in range(self.parts) if not self.file(part).exists()]

    def _check_same(self, about: Path, plain: Mapping[str, Any]) -> None:
        try:
            there = json.loads(about.read_text(encoding="utf-8"))
            differ = sorted(_differences(there, plain))
        except (OSError, ValueError, AttributeError, RecursionError) as error:
            raise UsageError(f"{about}: can't be read ({error}): give another folder") from None
        if differ:
            raise UsageError(
                f"--teacher-outputs {self.folder}: its outputs are of something else: "
                f"{'; '.join(differ)}. Give the values that they were made with, or another folder"
            )

    def write(self, part: int, logits: Tensor, ok: Tensor) -> None:
        """Writes a part.

        Args:
            part: its number.
            logits: [rows of the part, samples, classes].
            ok: bool [rows of the part].

        Raises:
            OutputError: it can't be written.
        """
        file = self.file(part)
        partial = file.with_name(f".{file.name}.partial")
        tensors = {"logits": logits.contiguous().cpu(), "ok": ok.cpu()}
        try:
            save_file(tensors, partial, {"made_from": self.digest()})
            with partial.open("rb") as written:
                os.fsync(written.fileno())
            os.replace(partial, file)
        except (OSError, SafetensorError) as error:
            partial.unlink(missing_ok=True)
            raise OutputError(f"{file}: can't be written: {error}") from error


def make_whole(
    rows: Rows,
    dataset: FixedViews,
    teacher: Callable[[], Teacher],
    config: DistillConfig,
    world: World,
    log: Log,
) -> None:
    """Checks that all outputs are there, and has a teacher say those that are missing.

    Args:
        rows: the outputs.
        dataset: whose clips they are of.
        teacher: gives it, on the run's device; it is called where something is missing.
        config: of the run.
        world: the processes that share the work.
        log: is told how far it is.

    Raises:
        UsageError: the folder is of something else, or another process works there.
        FailureShareError: more videos than ``data.max_failed_share`` can't be read.
        InterruptedRunError: SIGTERM or SIGINT; whole parts are kept.
        OutputError: a part can't be written.
    """
    with ExitStack() as held:
        missing = None
        if world.is_main:
            held.enter_context(FolderLock(rows.folder, "makes a teacher's outputs"))
            missing = rows.claim()
        missing = world.from_main(missing)
        if missing:
            _make_missing(rows, missing, dataset, teacher(), config, world, log)


def _differences(there: Any, here: Any, name: str = "") -> Iterator[str]:
    if isinstance(there, dict) and isinstance(here, dict):
        for key in there.keys() | here.keys():
            at = f"{name}.{key}" if name else key
            yield from _differences(there.get(key), here.get(key), at)
    elif isinstance(there, list) and isinstance(here, list) and len(there) == len(here):
        for number, pair in enumerate(zip(there, here, strict=True)):
            yield from _differences(*pair, f"{name}[{number}]")
    elif there != here:
        yield f"{name} is {there!r} there and {here!r} here"


def _make_missing(
    rows: Rows,
    missing: Sequence[int],
    dataset: FixedViews,
    teacher: Teacher,
    config: DistillConfig,
    world: World,
    log: Log,
) -> None:
    """Every process makes its part of the parts."""
    log(
        f"the teacher's outputs for {dataset.entries:,} videos x {dataset.views} view(s) x "
        f"{dataset.samples} clips go to {rows.folder}: {len(missing)} of {rows.parts} parts are "
        "missing"
    )
    failed = seen = 0
    with StopRequest() as stop:
        for begin in range(0, len(missing), world.size):
            mine = missing[begin + world.rank : begin + world.rank + 1]
            for part in mine:
                made = _say(rows.rows(part), dataset, teacher, config, world, stop, log)
                if made is not None:
                    rows.write(part, *made)
                    seen, failed = seen + len(made[1]), failed + int((~made[1]).sum())
            signum = world.agree(stop.signum)
            if signum:
                error = InterruptedRunError("", signum)
                raise InterruptedRunError(
                    f"stopped by {error.signum.name} while the teacher's outputs were made; whole "
                    f"parts are kept in {rows.folder}, and the same command goes on from there",
                    signum,
                )
            log(f"the teacher's outputs: {min(len(missing), begin + world.size)} of "
                f"{len(missing)} missing parts are made")  # fmt: skip
    failed, seen = world.total(failed), world.total(seen)
    if failed > config.data.max_failed_share * seen:
        raise FailureShareError(
            f"{failed} of {seen} views could not be read for the teacher's outputs, more than "
            f"data.max_failed_share {config.data.max_failed_share:g}: mend the list, remove "
            f"{rows.folder} and start again, or raise the share"
        )


def _say(
    rows: range,
    dataset: FixedViews,
    teacher: Teacher,
    config: DistillConfig,
    world: World,
    stop: StopRequest,
    log: Log,
) -> tuple[Tensor, Tensor] | None:
    """Logits [rows, samples, classes] and ok [rows] on the CPU; None where it is stopped."""
    logits, ok = [], []
    batches = once_loader(
        dataset,
        [dataset.draw_of(row) for row in rows],
        videos=config.data.validation_batch,
        workers=config.data.workers,
        device=world.device,
        time_limit=config.data.decode_timeout,
    )
    with closing(batches):  # type: ignore[type-var]
        for batch in batches:
            if stop.signum:
                return None
            with torch.no_grad(), torch.autocast(
                world.device.type, torch.bfloat16, enabled=teacher.bf16
            ):  # fmt: skip
                said = teacher(batch.frames)[0]
            logits.append(said.unflatten(0, (-1, dataset.samples)).cpu())
            ok.append(batch.ok.view(-1, dataset.samples)[:, 0].cpu())
            for failure in batch.failures:
                log(f"not known to the teacher: {failure}")
    return torch.cat(logits), torch.cat(ok)


class StoredOutputs:
    """Whole outputs, as a step's source of what the teacher says.

    Args:
        rows: the outputs.
        draws: of this process.
    """

    def __init__(self, rows: Rows, draws: StepDraws) -> None:
        # The loader's thread works on the order of its own data set
        dataset = copy.copy(draws.dataset)
        assert isinstance(dataset, FixedViews)
        dataset.order = copy.deepcopy(dataset.order)
        self._dataset = dataset
        self._draws = StepDraws(
            self._dataset, draws.videos_per_step, draws.micro_batches, draws.steps, draws.rank,
            draws.world,
        )  # fmt: skip
        self._rows = rows
        self._parts: list[Any] = []

    def open(self) -> None:
        """Before the first step, when all parts are there.

        Raises:
            UsageError: a part is damaged, or of other outputs.
        """
        rows, ok, self._parts = self._rows, [], []
        digest = rows.digest()
        for part in range(rows.parts):
            file = rows.file(part)
            try:
                opened: Any = safe_open(file, "pt")
                logits = opened.get_slice("logits")
                here, shape = opened.get_tensor("ok"), list(logits.get_shape())
                said = (opened.metadata() or {}).get("made_from")
            except (OSError, SafetensorError) as error:
                raise UsageError(
                    f"{file}: can't be read ({error}): remove it, and it is made again"
                ) from None
            expected = [len(rows.rows(part)), *rows.shape]
            if said != digest or shape != expected or list(here.shape) != expected[:1]:
                raise UsageError(
                    f"{file}: is no part of these outputs: remove it, and it is made again"
                )
            self._parts.append((opened, logits))
            ok.append(here)
        self._ok, self._dtype = torch.cat(ok), self._row(0).dtype

    def inputs(self, place: Place) -> dict[str, Tensor]:
        """teacher: [B, classes], logits; known: bool [B]. Of places that stay empty 0 and False."""
        dataset = self._dataset
        assert isinstance(dataset, FixedViews)
        found = [dataset.row(draw) for draw in self._draws.part(place.step, place.micro)]
        logits = torch.zeros(self._draws.videos, *self._rows.shape, dtype=self._dtype)
        known = torch.zeros(self._draws.videos, dtype=torch.bool)
        for i, row in enumerate(found):
            logits[i], known[i] = self._row(row), self._ok[row]
        return {"teacher": logits.flatten(0, 1), "known": known.repeat_interleave(dataset.samples)}

    def _row(self, row: int) -> Tensor:
        part, place = divmod(row, self._rows.size)
        logits: Tensor = self._parts[part][1][place : place + 1][0]
        return logits

    def say(self, clips: Tensor, inputs: Mapping[str, Tensor]) -> Said:
        return Said(inputs["teacher"])

    def ms_per_step(self, steps: int) -> float:
        """Nothing: the teacher does not run."""
        return 0.0
