from __future__ import annotations

import gc
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.real_clips import CLIPS, FOLDER, needs_clips
from videomae_fast.data import (
    ClipBatch,
    ClipDataset,
    DecodeError,
    FailureReport,
    FailureShareError,
    PipelineStats,
    Source,
    clip_loader,
    steps_per_epoch,
)
from videomae_fast.data.cache import CachedVideos
from videomae_fast.data.cache.videos import CacheCounts
from videomae_fast.data.decoders import DECODERS, Decoder, Frames
from videomae_fast.data.decoders.pyav import PyAVReader
from videomae_fast.data.device.base import EncodedClip
from videomae_fast.data.device.stage import ClipStage
from videomae_fast.data.reading import ReadResult, ReadSettings, read
from videomae_fast.data.views.multi_scale import MULTI_SCALE
from videomae_fast.data.views.rule import ClipShape

STEPS = 4  # of 4 videos each, from 6 videos in epochs of 9 draws: 2 steps per epoch


def make_dataset(clip_list: Path, **options: Any) -> ClipDataset:
    settings = {"frames": 4, "image_size": 16, "samples": 2, "epoch_size": 9, "seed": 7}
    return ClipDataset([Source(clip_list)], **(settings | options))


def load(clip_list: Path, *, start_step: int = 0, **options: Any) -> list[ClipBatch]:
    return list(
        clip_loader(
            make_dataset(clip_list),
            videos_per_step=4,
            start_step=start_step,
            total_steps=STEPS,
            **options,
        )
    )


def clips_of(batches: list[ClipBatch]) -> list[tuple[str, bytes, list[int], list[bool]]]:
    """Video by video: name, pixels of all its clips, mask seeds, ok."""
    videos = []
    for batch in batches:
        per_video = len(batch) // len(batch.names)
        for index, name in enumerate(batch.names):
            part = slice(index * per_video, (index + 1) * per_video)
            videos.append(
                (
                    name,
                    batch.frames[part].numpy().tobytes(),
                    batch.mask_seeds[part].tolist(),
                    batch.ok[part].tolist(),
                )
            )
    return videos


@pytest.fixture
def expected(clip_list: Path) -> list[tuple[str, bytes, list[int], list[bool]]]:
    batches = load(clip_list)
    assert len(batches) == STEPS
    videos = clips_of(batches)
    assert len(videos) == 16
    assert len({pixels for _, pixels, _, _ in videos}) == 16
    return videos


def test_batch(clip_list: Path) -> None:
    batch = load(clip_list)[0]
    assert batch.frames.shape == (8, 4, 16, 16, 3)
    assert batch.frames.dtype == torch.uint8
    assert batch.mask_seeds.shape == batch.ok.shape == batch.labels.shape == (8,)
    assert batch.ok.all()
    assert len(batch.names) == 4
    assert len(batch) == 8
    assert batch.failures == []
    assert f"({clip_list}:" in batch.names[0]


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(clip_list: Path, expected: list[Any], workers: int) -> None:
    assert clips_of(load(clip_list, workers=workers)) == expected


@pytest.mark.parametrize("micro_batches", [2, 4])
def test_micro_batches_change_nothing(
    clip_list: Path, expected: list[Any], micro_batches: int
) -> None:
    batches = load(clip_list, micro_batches=micro_batches)
    assert len(batches) == STEPS * micro_batches
    assert clips_of(batches) == expected


@pytest.mark.parametrize(("world", "micro_batches"), [(2, 1), (4, 1), (2, 2)])
def test_ranks_change_nothing(
    clip_list: Path, expected: list[Any], world: int, micro_batches: int
) -> None:
    ranks = [
        load(clip_list, rank=rank, world=world, micro_batches=micro_batches)
        for rank in range(world)
    ]
    joined = [
        batch
        for step in range(STEPS)
        for rank in range(world)
        for batch in ranks[rank][step * micro_batches : (step + 1) * micro_batches]
    ]
    assert clips_of(joined) == expected


@pytest.mark.parametrize("start_step", [1, 2, 3, 4])
def test_starting_later_continues(clip_list: Path, expected: list[Any], start_step: int) -> None:
    """Step 1 is in mid-epoch, step 2 begins an epoch, after step 4 nothing is left."""
    assert clips_of(load(clip_list, start_step=start_step)) == expected[4 * start_step :]


def test_the_seed_changes_everything(clip_list: Path, expected: list[Any]) -> None:
    dataset = make_dataset(clip_list, seed=8)
    other = clips_of(list(clip_loader(dataset, videos_per_step=4, total_steps=STEPS)))
    assert not {video[1] for video in other} & {video[1] for video in expected}


def test_torch_random_state_is_left_alone(clip_list: Path) -> None:
    for workers in (0, 1):
        torch.manual_seed(0)
        before = torch.random.get_rng_state()
        load(clip_list, workers=workers)
        assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("workers", [0, 2])
def test_failed_videos_keep_the_shapes_and_the_rest(
    clip_list: Path, expected: list[Any], workers: int
) -> None:
    lines = clip_list.read_text().splitlines()
    clip_list.write_text("\n".join([*lines[:2], "/nowhere/clip2.mp4 0 -1", *lines[3:]]) + "\n")
    batches = load(clip_list, workers=workers)
    assert {batch.frames.shape for batch in batches} == {(8, 4, 16, 16, 3)}
    failed = [failure for batch in batches for failure in batch.failures]
    assert failed
    assert {(f.path, f.line, f.reason) for f in failed} == {
        ("/nowhere/clip2.mp4", 3, "no such file")
    }
    for step, batch in enumerate(batches):
        assert all(failure.step == step for failure in batch.failures)
        assert (~batch.ok).sum() == 2 * len(batch.failures)
        assert not batch.frames[~batch.ok].any()
    for video, before in zip(clips_of(batches), expected, strict=True):
        if all(video[3]):
            assert video == before
        else:
            assert "clip2.mp4" in before[0]
            assert video[2] == before[2]  # the masks do not depend on the file


def test_labels(clips: Path, tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("".join(f"{clips}/clip{index}.mp4 {index * 10}\n" for index in range(6)))
    dataset = ClipDataset([Source(path, format="labels")], frames=2, image_size=8, samples=2)
    (batch,) = clip_loader(dataset, videos_per_step=6, total_steps=1)
    assert sorted(batch.labels.tolist()) == sorted([0, 10, 20, 30, 40, 50] * 2)
    for index, name in enumerate(batch.names):
        number = int(name.split("clip")[-1].split(".mp4")[0])
        assert batch.labels[2 * index : 2 * index + 2].tolist() == [number * 10] * 2


def test_steps_per_epoch(clip_list: Path) -> None:
    dataset = make_dataset(clip_list)
    assert len(dataset) == 9
    assert steps_per_epoch(dataset, 4) == 2
    assert len(make_dataset(clip_list, epoch_size=None)) == 6


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"rank": 1}, "below world"),
        ({"workers": -1}, "workers"),
        ({"start_step": -1}, "start_step"),
        ({"videos_per_step": 10}, "shorter than one step"),
    ],
)
def test_wrong_numbers_are_told_at_once(
    clip_list: Path, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        clip_loader(make_dataset(clip_list), **({"videos_per_step": 4, "total_steps": 4} | options))


# What a decoder can do to a loader process, by the name of the file
FAULTS = {
    "crash": "the decoder crashed",
    "hang": "the decoder hung",
    "bug": "RuntimeError: a bug",
    "memory": "MemoryError",
}


class FaultyReader(PyAVReader):
    """A decoder that crashes, hangs or has a bug on files that are called so."""

    def read(self, ids: Sequence[int]) -> Frames:
        name = self._content.stem
        if name == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        elif name == "hang":
            time.sleep(1000)
        elif name == "bug":
            raise RuntimeError("a bug")
        elif name == "memory":
            raise MemoryError
        return super().read(ids)


FAULTY = Decoder("faulty", FaultyReader, lambda: None)


@dataclass(frozen=True)
class FaultyReadSettings(ReadSettings):
    """Brings the decoder along: a loader process knows only what it is sent."""

    def __post_init__(self) -> None:
        DECODERS["faulty"] = FAULTY

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.__post_init__()


class FaultyDataset(ClipDataset):
    @property
    def read_settings(self) -> ReadSettings:
        return FaultyReadSettings(self.frames, self.size, self.samples, "faulty")


def with_faults(clip_list: Path, tmp_path: Path, *faults: str) -> FaultyDataset:
    lines = clip_list.read_text().splitlines()
    for place, fault in enumerate(faults):
        shutil.copy(lines[place].split()[0], tmp_path / f"{fault}.mp4")
        lines[place] = f"{tmp_path / fault}.mp4 0 -1"
    clip_list.write_text("\n".join(lines) + "\n")
    return FaultyDataset([Source(clip_list)], frames=4, image_size=16, samples=2, seed=7)


def test_a_crash_and_a_hang_cost_their_videos_only(clip_list: Path, tmp_path: Path) -> None:
    run = {"videos_per_step": 3, "total_steps": 2}  # an epoch
    expected = clips_of(list(clip_loader(make_faultless(clip_list), **run)))
    dataset = with_faults(clip_list, tmp_path, "crash", "hang")
    for limit in (3, 30, 100):  # on a machine that is busy, sound videos take long, too
        batches = list(clip_loader(dataset, workers=2, time_limit=limit, **run))
        failures = [failure for batch in batches for failure in batch.failures]
        if len(failures) == 2:
            break
    assert len(failures) == 2
    for failure in failures:
        assert failure.reason.startswith(FAULTS[Path(failure.path).stem]), failure
    assert any("SIGSEGV" in failure.reason for failure in failures)
    for video, before in zip(clips_of(batches), expected, strict=True):
        if all(video[3]):
            assert video == before
        else:
            assert video[2] == before[2]
            assert not any(video[1])


RUN: dict[str, Any] = {"videos_per_step": 3, "total_steps": 4}


def make_faultless(clip_list: Path) -> ClipDataset:
    return ClipDataset([Source(clip_list)], frames=4, image_size=16, samples=2, seed=7)


@pytest.mark.parametrize("workers", [0, 1])
def test_what_no_decoder_foresaw_costs_its_video_only(
    clip_list: Path, tmp_path: Path, workers: int
) -> None:
    dataset = with_faults(clip_list, tmp_path, "bug", "memory")
    batches = list(clip_loader(dataset, workers=workers, **RUN))
    failures = [failure for batch in batches for failure in batch.failures]
    assert len(batches) == 4
    assert len(failures) == 4  # two epochs
    for failure in failures:
        assert failure.reason == FAULTS[Path(failure.path).stem]
        assert "Traceback" in failure.trace


def test_a_fault_that_all_files_meet_surfaces_by_its_class(clip_list: Path, tmp_path: Path) -> None:
    with_faults(clip_list, tmp_path, "bug")
    clip_list.write_text(clip_list.read_text().splitlines()[0])
    dataset = FaultyDataset([Source(clip_list)], frames=4, image_size=16, samples=2)
    with FailureReport(tmp_path / "run") as report:
        for batch in clip_loader(dataset, workers=0, videos_per_step=1, total_steps=2):
            report.add(batch.failures, draws=1)
        with pytest.raises(FailureShareError) as caught:
            report.check(0.5)
    told = str(caught.value)
    assert "Most frequent: 2 x RuntimeError: a bug. The first: " in told
    assert f"No decoder foresaw this: {tmp_path}/bug.mp4 ({clip_list}:1): RuntimeError" in told


@pytest.mark.parametrize("odd", [RuntimeError("gone"), torch.zeros(4, 5, 5, 3, dtype=torch.uint8)])
def test_a_device_that_gives_another_size_or_nothing_costs_that_video(odd: Any) -> None:
    """Frames that the boxes lie outside of were an error of the whole run."""

    class Device:
        def decode(self, clips: Sequence[EncodedClip]) -> list[Any]:
            return [DecodeError.unforeseen(odd) if isinstance(odd, Exception) else odd, good]

    good = torch.full((4, 20, 20, 3), 9, dtype=torch.uint8)
    encoded = ReadResult("encoded", np.zeros(1, np.uint8), ((2, 2, 16, 16),), (0, 1, 2, 3), 4)
    shape, device = ClipShape(samples=1, frames=4, size=(8, 8)), torch.device("cpu")
    stage = ClipStage(MULTI_SCALE, shape, device, Device())  # type: ignore[arg-type]
    clips, failed, _ = stage([encoded, encoded])
    assert list(failed) == [0]
    assert not clips[0].any()
    assert clips[1].eq(9).all()


def test_an_iterator_that_is_left_ends_its_processes(clip_list: Path) -> None:
    before = set(multiprocessing.active_children())
    batches = clip_loader(make_faultless(clip_list), workers=2, **RUN)
    next(batches)
    assert set(multiprocessing.active_children()) - before
    batches.close()  # type: ignore[attr-defined]
    assert not set(multiprocessing.active_children()) - before
    assert not [t for t in threading.enumerate() if t.name.startswith("clip-")]


def slots_open() -> int:
    names = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
    return sum("videomae-fast-clip" in os.readlink(name) for name in names if os.path.lexists(name))


@pytest.mark.skipif(sys.platform != "linux", reason="open files are counted in /proc")
@pytest.mark.parametrize("ended", ["closed", "failed"])
def test_memory_is_given_back_at_once(clip_list: Path, tmp_path: Path, ended: str) -> None:
    """And not when Python's collector comes round: 24 open files each, and their clips."""
    shutil.copy(clip_list.read_text().split()[0], tmp_path / "hang.mp4")
    late = make_faultless(clip_list).order.draws(0, 6, 4, 5)[0].entry
    lines = clip_list.read_text().splitlines()
    lines[late] = f"{tmp_path}/hang.mp4 0 -1"  # the second batch has a video before it
    clip_list.write_text("\n".join(lines))
    dataset = with_faults(clip_list, tmp_path)
    gc.disable()
    try:
        batches = clip_loader(dataset, workers=2, videos_per_step=3, total_steps=2)
        next(batches)
        assert slots_open()
        time.sleep(0.5)
        if ended == "closed":
            batches.close()  # type: ignore[attr-defined]
        elif ended == "failed":
            with pytest.raises(KeyError):
                batches.throw(KeyError("the loop's"))  # type: ignore[attr-defined]
        del batches
        assert slots_open() == 0
    finally:
        gc.enable()


def test_processes_that_are_killed_from_outside_are_replaced(clip_list: Path) -> None:
    before = set(multiprocessing.active_children())
    batches = clip_loader(
        make_faultless(clip_list), workers=2, prefetch=1, videos_per_step=3, total_steps=40
    )
    first = next(batches)
    for process in set(multiprocessing.active_children()) - before:
        os.kill(process.pid, signal.SIGKILL)
    rest = list(batches)
    assert len(rest) == 39
    assert sum(len(batch.failures) for batch in [first, *rest]) <= 2  # what they had in hand


def test_nothing_leaks_over_many_clips(clip_list: Path) -> None:
    dataset = make_faultless(clip_list)

    def used() -> tuple[int, int]:
        with open("/proc/self/statm") as file:
            resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        return resident, len(os.listdir("/proc/self/fd"))

    batches = clip_loader(dataset, workers=1, videos_per_step=6, total_steps=300)
    states = []
    for number, _ in enumerate(batches):
        if number in (50, 175, 299):
            states.append(used())
    memory, files = zip(*states, strict=True)
    assert files[2] <= files[0] + 2
    # What leaks, leaks both times; other things of the process may take memory once
    assert min(memory[1] - memory[0], memory[2] - memory[1]) < 4e6


def test_the_device_crops_the_same(clip_list: Path, expected: list[Any]) -> None:
    for workers in (0, 2):
        assert clips_of(load(clip_list, workers=workers, crop_on="device")) == expected


def test_the_device_crop_with_a_failure(clip_list: Path, expected: list[Any]) -> None:
    lines = clip_list.read_text().splitlines()
    clip_list.write_text("\n".join([*lines[:2], "/nowhere/clip2.mp4 0 -1", *lines[3:]]) + "\n")
    plain = clips_of(load(clip_list))
    assert any(not all(video[3]) for video in plain)
    assert clips_of(load(clip_list, crop_on="device")) == plain


@pytest.mark.parametrize("workers", [0, 2])
def test_a_cache_changes_nothing_but_the_decoding(
    clip_list: Path, expected: list[Any], tmp_path: Path, workers: int
) -> None:
    for hits in (0, 1):  # filled by the first run, read by the second
        stats = PipelineStats(workers)
        dataset = make_dataset(clip_list, cache=CachedVideos(tmp_path / "cache", 10**8))
        batches = clip_loader(
            dataset, videos_per_step=4, total_steps=STEPS, workers=workers, stats=stats
        )
        assert clips_of(list(batches)) == expected
        assert stats.cached.hits + stats.cached.misses == 16
        told = stats.how_read()
        assert told is not None
        if hits:
            assert told == "16 of 16 videos came from the cache"
        else:
            assert stats.cached.filled == 6


def test_frames_are_counted_where_they_were_decoded() -> None:
    stats = PipelineStats(2)
    stats.read(0.1, 0.1, frames=16)
    stats.read(0.1, 0.1, cached=CacheCounts(hits=1), frames=8)
    stats.read(0.1, 0.0, frames=32, on_device=True)
    assert stats.frames() == {"frames_cpu": 16, "frames_device": 32, "frames_cached": 8}
    stats.bottleneck()
    assert sum(stats.frames().values()) == 0


def test_the_report_of_the_stages(clip_list: Path) -> None:
    now = [0.0]
    stats = PipelineStats(2, clock=lambda: now[0])
    stats.read(0.2, 0.9)
    stats.worked(1.9)
    now[0] = 1.0
    assert "mostly cropping" in stats.bottleneck().advice
    stats.read(0.9, 0.2, 0.5, "codec av1")
    stats.worked(1.9)
    now[0] = 2.0
    assert "mostly decoding" in stats.bottleneck().advice
    assert stats.kept_back == {"codec av1": 1}
    stats.read(1.7, 0.2, 1.0)
    stats.worked(1.9)
    now[0] = 3.0
    assert "mostly wait: for the disk or network" in stats.bottleneck().advice
    stats.assembled(0.95)
    now[0] = 4.0
    assert "joining batches" in stats.bottleneck().advice
    stats.read(1.7, 0.2, 0.1, queued_seconds=1.5)
    stats.worked(1.9)
    now[0] = 5.0
    assert "mostly wait for a free core: take fewer --workers" in stats.bottleneck().advice
    now[0] = 6.0
    assert "neither the loader processes (busy 0%" in stats.bottleneck().advice
    assert "--workers" in PipelineStats(0).bottleneck().advice
    counted = PipelineStats(1)
    list(clip_loader(make_dataset(clip_list), stats=counted, workers=1, **RUN))
    assert "disk" not in counted.bottleneck().advice


def test_the_start_of_the_loaders_is_no_time_of_theirs() -> None:
    now = [0.0]
    stats = PipelineStats(1, clock=lambda: now[0])
    now[0] = 9.0  # importing
    stats.read(0.9, 0.05)
    stats.worked(1.0)
    now[0] = 9.1
    assert "busy 91% of the time, mostly decoding" in stats.bottleneck().advice


def test_waiting_for_a_core_is_told_from_waiting_for_a_file(
    clip_list: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not Path("/proc/thread-self/schedstat").exists():
        pytest.skip("this system does not count the time without a core")
    cores = os.sched_getaffinity(0)
    one = {min(cores)}
    # Not for ever, whatever keeps this process from ending them
    spin = "import time\nprint(flush=True)\nend = time.time() + 30\nwhile time.time() < end: pass"
    opened = PyAVReader.__init__

    def computing(self: PyAVReader, path: Path) -> None:
        end = time.process_time() + 0.1
        while time.process_time() < end:
            pass
        opened(self, path)

    monkeypatch.setattr(PyAVReader, "__init__", computing)
    dataset = make_dataset(clip_list)
    request = dataset.request(dataset.order.draws(0, 4, 0, 1)[0])
    os.sched_setaffinity(0, one)
    command = [sys.executable, "-c", spin]
    others = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(3)]
    try:
        for other in others:  # it takes a while until they all compute
            assert other.stdout is not None
            other.stdout.readline()
        piece = read(request, dataset.read_settings)
    finally:
        os.sched_setaffinity(0, cores)
        for other in others:
            other.kill()
            other.communicate()
    assert piece.queued_seconds > piece.waited_seconds
    assert piece.queued_seconds > 0.1


def test_waiting_for_a_file_is_told_from_decoding(
    clip_list: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = make_dataset(clip_list)
    request = dataset.request(dataset.order.draws(0, 4, 0, 1)[0])
    quick = read(request, dataset.read_settings)
    opened = PyAVReader.__init__

    def slow(self: PyAVReader, path: Path) -> None:
        time.sleep(0.5)
        opened(self, path)

    monkeypatch.setattr(PyAVReader, "__init__", slow)
    piece = read(request, dataset.read_settings)
    # However busy the machine is: waiting for a core is told apart
    assert 0.4 < piece.waited_seconds <= piece.decode_seconds
    assert piece.waited_seconds + piece.queued_seconds > 0.49
    assert quick.waited_seconds < piece.waited_seconds


@needs_clips
def test_real_clips(tmp_path: Path) -> None:
    """H.264 (8 and 10 bits), H.265 and AV1, through the whole pipeline."""
    files = CLIPS
    (tmp_path / "list.csv").write_text("".join(f"{file.name} 0 -1\n" for file in files))
    dataset = ClipDataset([Source(tmp_path / "list.csv", FOLDER)], image_size=64, samples=2)
    (batch,) = clip_loader(dataset, videos_per_step=len(files), total_steps=1)
    assert batch.failures == []
    assert batch.frames.shape == (2 * len(files), 16, 64, 64, 3)
    assert (batch.frames.float().std(dim=(1, 2, 3, 4)) > 5).all()


def test_threads_take_short_turns_while_processes_read(clip_list: Path) -> None:
    usual = sys.getswitchinterval()
    batches = clip_loader(make_dataset(clip_list), videos_per_step=4, total_steps=2, workers=1)
    next(batches)
    assert sys.getswitchinterval() < usual
    batches.close()  # type: ignore[attr-defined]
    assert sys.getswitchinterval() == usual


def test_stats_may_be_given_by_their_former_name(clip_list: Path) -> None:
    joined: list[float] = []

    class Listed(PipelineStats):
        def assembled(self, seconds: float) -> None:
            joined.append(seconds)

    with pytest.warns(DeprecationWarning, match="clip_loader's feeding is now stats"):
        loader = clip_loader(make_dataset(clip_list), feeding=Listed(0), **RUN)
    assert len(list(loader)) == len(joined)
