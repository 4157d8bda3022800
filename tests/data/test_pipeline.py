from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from videomae_fast.data import (
    ClipBatch,
    ClipDataset,
    Draw,
    Source,
    WorkerDiedError,
    clip_loader,
    steps_per_epoch,
)
from videomae_fast.data.dataset import ClipSample

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
        ({"world": 3}, "multiple of processes"),
        ({"micro_batches": 3}, "multiple of processes"),
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


class Dying(ClipDataset):
    """Its process is killed, as a crashing decoder would kill it, at the third step."""

    def __getitem__(self, draw: Draw) -> ClipSample:
        if draw.step == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(draw)


class Wrong(ClipDataset):
    def __getitem__(self, draw: Draw) -> ClipSample:
        raise RuntimeError("a bug")


def loader_of(kind: type[ClipDataset], clip_list: Path) -> Iterator[ClipBatch]:
    dataset = kind([Source(clip_list)], frames=2, image_size=8, samples=1)
    return clip_loader(dataset, videos_per_step=2, total_steps=9, workers=1, prefetch=1)


def test_a_worker_that_dies_is_noticed(clip_list: Path) -> None:
    with pytest.raises(WorkerDiedError) as caught:
        list(loader_of(Dying, clip_list))
    message = str(caught.value)
    assert "loader process ended" in message
    assert "/dev/shm" in message
    assert "clip" in message


def test_a_bug_in_a_worker_stays_what_it_is(clip_list: Path) -> None:
    with pytest.raises(RuntimeError, match="a bug") as caught:
        list(loader_of(Wrong, clip_list))
    assert not isinstance(caught.value, WorkerDiedError)


REAL_CLIPS = Path(__file__).parents[3] / "shared" / "videos"


@pytest.mark.skipif(not REAL_CLIPS.is_dir(), reason="the folder of real clips is not there")
def test_real_clips(tmp_path: Path) -> None:
    """H.264 (8 and 10 bits), H.265 and AV1, through the whole pipeline."""
    files = sorted(REAL_CLIPS.iterdir())
    (tmp_path / "list.csv").write_text("".join(f"{file.name} 0 -1\n" for file in files))
    dataset = ClipDataset([Source(tmp_path / "list.csv", REAL_CLIPS)], image_size=64, samples=2)
    (batch,) = clip_loader(dataset, videos_per_step=len(files), total_steps=1)
    assert batch.failures == []
    assert batch.frames.shape == (2 * len(files), 16, 64, 64, 3)
    assert (batch.frames.float().std(dim=(1, 2, 3, 4)) > 5).all()
