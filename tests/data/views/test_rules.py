"""Views of labelled videos, out of the loader: the official pixels, in loader processes and out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.videos import texture, write_video
from videomae_fast.data import ClipDataset, Source, clip_loader, open_video
from videomae_fast.data.augment.policy import AugmentSettings, draw_augmentation
from videomae_fast.data.order import item_words
from videomae_fast.data.randomness import Randomness
from videomae_fast.data.views.augmented import Augmented, as_view
from videomae_fast.data.views.evaluation import Evaluation
from videomae_fast.data.views.evaluation_crops import crop_corners, short_side_resized
from videomae_fast.data.views.labelled_frames import dense_test_ids, sparse_test_ids
from videomae_fast.data.views.rule import ClipShape
from videomae_fast.ops import augmented_views
from videomae_fast.ops.bilinear_resize import bilinear_resize

SIZE, FRAMES, STRIDE = 32, 4, 2


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list of four labelled videos, one of which can't be read."""
    folder = tmp_path_factory.mktemp("labelled")
    lines = []
    for number in range(3):
        size = (48, 40) if number else (36, 52)
        write_video(folder / f"{number}.mp4", 14 + number, size=size, make=texture)
        lines.append(f"{folder}/{number}.mp4 {number}\n")
    (folder / "bad.mp4").write_bytes(b"no video")
    lines.append(f"{folder}/bad.mp4 7\n")
    path = folder / "train.csv"
    path.write_text("".join(lines))
    return path


def _dataset(path: Path, rule: Any, samples: int) -> ClipDataset:
    return ClipDataset(
        [Source(path, format="labels")], frames=FRAMES, stride=STRIDE, image_size=SIZE,
        samples=samples, rule=rule,
    )  # fmt: skip


def _batch(dataset: ClipDataset, **options: Any) -> Any:
    loader = clip_loader(dataset, videos_per_step=4, total_steps=1, **options)
    (batch,) = list(loader)
    return batch


@pytest.mark.parametrize("sampling", ["dense", "sparse"])
@pytest.mark.parametrize("options", [{}, {"workers": 2}, {"crop_on": "device"}], ids=str)
def test_training_views_are_the_drawn_ones(clips: Path, sampling: Any, options: Any) -> None:
    rule = Augmented(sampling, AugmentSettings(erase=0.5))
    dataset = _dataset(clips, rule, 2)
    batch = _batch(dataset, **options)
    assert batch.frames.dtype == torch.float32
    assert batch.frames.shape == (8, FRAMES, SIZE, SIZE, 3)
    assert batch.labels.tolist() == [n for n in batch.labels.tolist()[::2] for _ in range(2)]
    assert sorted(set(batch.labels.tolist())) == [0, 1, 2, 7]
    assert batch.ok.tolist() == (batch.labels != 7).tolist()
    assert batch.frames[~batch.ok].abs().sum() == 0
    for place in range(4):
        label = int(batch.labels[2 * place])
        if label == 7:
            continue
        words = item_words(0, 0, place, 9)
        with open_video(clips.parent / f"{label}.mp4") as video:
            shape = dataset.read_settings.shape
            ids = rule.ids(video.frame_count, STRIDE, words, shape)
            frames = torch.from_numpy(video.read(list(ids)))
        for sample in range(2):
            rng = Randomness(*words[1 + 4 * sample : 3 + 4 * sample])
            size = (frames.shape[1], frames.shape[2])
            plan = draw_augmentation(rule.settings, size, (SIZE, SIZE), rng)
            (wanted,) = augmented_views([frames], [as_view(0, plan)], (SIZE, SIZE))
            assert torch.equal(batch.frames[2 * place + sample], wanted)
    assert not torch.equal(batch.frames[0], batch.frames[1])


@pytest.mark.parametrize(("segments", "crops"), [(1, 1), (2, 3), (5, 1)])
@pytest.mark.parametrize("sampling", ["dense", "sparse"])
def test_test_views_are_every_segment_and_crop(
    clips: Path, sampling: Any, segments: int, crops: int
) -> None:
    rule = Evaluation(sampling, segments, crops)
    whole = _batch(_dataset(clips, rule, rule.views), workers=2)
    device = _batch(_dataset(clips, rule, rule.views), crop_on="device")
    assert torch.equal(whole.frames, device.frames)
    assert whole.frames.dtype == torch.uint8
    for place in range(4):
        label = int(whole.labels[rule.views * place])
        if label == 7:
            continue
        with open_video(clips.parent / f"{label}.mp4") as video:
            count = video.frame_count
            if sampling == "sparse":
                ids = sparse_test_ids(count, FRAMES, segments)
            else:
                ids = dense_test_ids(count, FRAMES, STRIDE, segments)
            every = torch.from_numpy(video.read(list(range(count))))
        resized = short_side_resized((every.shape[1], every.shape[2]), SIZE)
        small = bilinear_resize(every, resized)
        wanted = [
            small[torch.from_numpy(clip), top : top + SIZE, left : left + SIZE]
            for clip in ids
            for top, left in crop_corners(resized, SIZE, crops)
        ]
        mine = whole.frames[place * rule.views : (place + 1) * rule.views]
        assert torch.equal(mine, torch.stack(wanted))


def test_a_test_decodes_no_frame_twice(clips: Path) -> None:
    rule = Evaluation("dense", 5, 3)
    shape = _dataset(clips, rule, 15).read_settings.shape
    ids = rule.ids(40, STRIDE, [0], shape)
    assert len(set(ids)) == len(ids) == 20
    assert list(ids) == sorted(ids)


def test_validation_is_the_middle(clips: Path) -> None:
    rule = Evaluation()
    batch = _batch(_dataset(clips, rule, 1))
    assert batch.frames.shape == (4, FRAMES, SIZE, SIZE, 3)
    shape = _dataset(clips, rule, 1).read_settings.shape
    assert np.diff(rule.ids(100, STRIDE, [0], shape)).max() <= 3


def test_one_of_both_numbers_is_no_test() -> None:
    with pytest.raises(ValueError, match="must both be at least 1"):
        Evaluation("dense", 3, 0)


@pytest.mark.parametrize("duration", [70, 150, 300, 1000])
def test_a_test_of_5_x_3_decodes_a_tenth_of_the_official_frames_and_less(duration: int) -> None:
    """Officially each of the 15 items decodes the whole strided video."""
    officially = 15 * len(range(0, duration, 4))
    rule, shape = Evaluation("dense", 5, 3), ClipShape(15, 16, (224, 224))
    ids = rule.ids(duration, 4, (), shape)
    assert len(set(ids)) == len(ids)
    assert officially >= 10 * len(ids)
    assert len(rule.plans((256, 340), duration, 4, (), shape)) == 15
