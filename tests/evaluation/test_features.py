"""Features of windows: the released ones, and any layer, size and pooling."""

from __future__ import annotations

import resource
import weakref
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.downstream import downstream
from tests.support.random_weights import TINY, randomised
from tests.support.videos import write_video
from videomae_fast import MAEConfig, MaskedAutoencoder, VideoClassifier
from videomae_fast.data.decoders import open_video
from videomae_fast.data.decoders.base import Frames, ReaderBase
from videomae_fast.data.decoders.in_order import frames_per_second, read_in_order
from videomae_fast.data.errors import DecodeError
from videomae_fast.evaluation.features import FeatureSettings, clip_features, preset, video_features
from videomae_fast.evaluation.windows import WindowRule
from videomae_fast.models.frozen import FrozenFeatures
from videomae_fast.models.pixels import IMAGENET, UNIT

GOLDEN = Path(__file__).parents[1] / "golden" / "downstream_tad.safetensors"


class FrameStore(ReaderBase):
    """Frames in memory, which counts how often each is read."""

    def __init__(self, frames: Frames) -> None:
        self.frames, self.counts = frames, Counter[int]()

    @property
    def frame_count(self) -> int:
        return len(self.frames)

    def read(self, ids: Sequence[int]) -> Frames:
        self.counts.update(ids)
        return self.frames[list(ids)]


@pytest.fixture(scope="module")
def released() -> tuple[VideoClassifier, FrameStore, dict[str, torch.Tensor]]:
    official = downstream("tad")
    model = VideoClassifier(official.config, 1).eval()
    missing = model.load_state_dict(official.parameters, strict=False).missing_keys
    assert missing == ["head.weight", "head.bias"]
    data = official.tensors
    return model, FrameStore(data["frames"].numpy()), data


@pytest.fixture(scope="module")
def tiny() -> VideoClassifier:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = randomised(VideoClassifier(MAEConfig(**TINY), 3))
    assert isinstance(model, VideoClassifier)
    return model


@pytest.fixture(scope="module")
def pretrained() -> MaskedAutoencoder:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = randomised(MaskedAutoencoder(MAEConfig(**TINY)))
    assert isinstance(model, MaskedAutoencoder)
    return model


def store(count: int, height: int = 40, width: int = 56) -> FrameStore:
    rng = np.random.default_rng(0)
    return FrameStore(rng.integers(0, 256, (count, height, width, 3), dtype=np.uint8))


SMALL = FeatureSettings(WindowRule(stride=2, length=4), (32, 32))


@pytest.mark.parametrize("name", ["thumos14", "fineaction"])
@pytest.mark.parametrize("batch", [1, 4])
def test_released_features(released: Any, name: str, batch: int) -> None:
    model, video, data = released
    video.counts.clear()
    found = video_features(FrozenFeatures(model), video, preset(name), batch=batch)
    expected = data[f"features/{name.upper()}"].numpy()
    assert found.dtype == np.float32
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 1e-5
    assert set(video.counts.values()) == {1}  # no frame twice, though four windows share it


def test_wrong_normalisation_is_seen(released: Any) -> None:
    model, video, data = released
    wrong = replace(preset("fineaction"), pixels=IMAGENET)
    found = video_features(FrozenFeatures(model), video, wrong)
    assert np.abs(found - data["features/FINEACTION"].numpy()).max() > 1e-3


def test_features_are_the_classifiers_own(tiny: VideoClassifier) -> None:
    video = store(9, 32, 32)
    found = video_features(FrozenFeatures(tiny), video, SMALL, batch=3)
    clips = torch.stack([torch.from_numpy(video.frames[i : i + 4]) for i in (0, 2, 4)])
    with torch.no_grad():
        expected = tiny.features(clips)
    torch.testing.assert_close(torch.from_numpy(found), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("layer", [1, 2, None])
@pytest.mark.parametrize("final_norm", [True, False])
def test_poolings_agree(
    tiny: VideoClassifier, pretrained: MaskedAutoencoder, layer: int | None, final_norm: bool
) -> None:
    clips = torch.from_numpy(store(4, 32, 48).frames)[None].expand(2, -1, -1, -1, -1).contiguous()
    for model in (tiny, pretrained.encoder):
        kinds = {
            pooling: FrozenFeatures(model, pooling, layer, final_norm)
            for pooling in ("clip", "slots", "tokens")
        }
        made = {pooling: each(clips) for pooling, each in kinds.items()}
        for pooling, each in kinds.items():
            assert made[pooling].shape == (2, *each.shape(4, (32, 48)))
        assert made["tokens"].shape == (2, 2, 2, 3, 32)
        if kinds["clip"].norm_applied != "fc_norm":  # which comes after the mean
            torch.testing.assert_close(made["tokens"].mean((2, 3)), made["slots"])
            torch.testing.assert_close(made["slots"].mean(1), made["clip"])


def test_the_norm_is_told(tiny: VideoClassifier, pretrained: MaskedAutoencoder) -> None:
    assert FrozenFeatures(tiny).norm_applied == "fc_norm"
    assert FrozenFeatures(pretrained.encoder).norm_applied == "encoder.norm"
    for model in (tiny, pretrained.encoder):
        assert FrozenFeatures(model, layer=2).norm_applied != "none"
        assert FrozenFeatures(model, layer=1).norm_applied == "none"
        assert FrozenFeatures(model, final_norm=False).norm_applied == "none"


def test_pretrained_tokens_are_those_of_the_whole_encoder(pretrained: MaskedAutoencoder) -> None:
    from videomae_fast import Grid

    clips = torch.from_numpy(store(4, 32, 32).frames)[None]
    found = FrozenFeatures(pretrained.encoder, "tokens")(clips)
    every = torch.arange(8, dtype=torch.int32)[None]
    with torch.no_grad():
        expected = pretrained.encoder(clips, every, Grid(2, 2, 2))
    torch.testing.assert_close(found.reshape(1, 8, 32), expected)


def test_a_layer_is_what_its_block_gives(tiny: VideoClassifier) -> None:
    clips = torch.from_numpy(store(4, 32, 32).frames)[None]
    with torch.random.fork_rng():
        shallow = VideoClassifier(MAEConfig(**{**TINY, "depth": 1}), 3).eval()
    shallow.load_state_dict(tiny.state_dict(), strict=False)
    found = FrozenFeatures(tiny, "tokens", layer=1)(clips)
    torch.testing.assert_close(found, FrozenFeatures(shallow, "tokens", final_norm=False)(clips))


def test_one_padded_window_or_a_reason(tiny: VideoClassifier) -> None:
    video = store(3, 32, 32)
    padded = video_features(FrozenFeatures(tiny), video, SMALL)
    longer = FrameStore(video.frames[[0, 1, 2, 2]])
    assert np.array_equal(padded, video_features(FrozenFeatures(tiny), longer, SMALL))
    strict = replace(SMALL, windows=WindowRule(stride=2, length=4, short="report"))
    with pytest.raises(DecodeError, match="has 3 frames, and a window spans 4"):
        video_features(FrozenFeatures(tiny), video, strict)


@pytest.mark.parametrize("fit", ["squash", "crop"])
def test_any_size_stride_and_length(tiny: VideoClassifier, fit: Any) -> None:
    settings = FeatureSettings(WindowRule(5, 8, 2), (48, 48), fit, UNIT)
    found = video_features(FrozenFeatures(tiny), store(40), settings)
    assert found.shape == ((40 - 15) // 5 + 1, 32)
    assert np.isfinite(found).all()


def test_bf16_is_near_and_float32(tiny: VideoClassifier) -> None:
    video = store(6, 32, 32)
    exact = video_features(FrozenFeatures(tiny), video, SMALL)
    rough = video_features(FrozenFeatures(tiny), video, SMALL, bf16=True)
    assert rough.dtype == np.float32
    assert 0 < np.abs(rough - exact).max() < 0.2


class Endless(ReaderBase):
    """Frames made when they are read; notes how many of them are alive at once."""

    frame_count = 2000

    def __init__(self) -> None:
        self.alive: weakref.WeakSet[Alive] = weakref.WeakSet()
        self.most = 0

    def read(self, ids: Sequence[int]) -> Frames:
        made = np.zeros((len(ids), 32, 32, 3), dtype=np.uint8).view(Alive)
        self.alive.add(made)
        self.most = max(self.most, len(self.alive) * len(ids))
        return made


class Alive(np.ndarray[Any, Any]):
    """An array with an identity of its own."""

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> Any:
        return self is other


def test_memory_does_not_grow_with_a_video(tiny: VideoClassifier) -> None:
    video = Endless()
    windows = 0
    sparse = replace(SMALL, windows=WindowRule(stride=4, length=4))
    for part in clip_features(FrozenFeatures(tiny), video, sparse, batch=25):
        assert len(part) <= 25
        windows += len(part)
    assert windows == 500
    assert 0 < video.most <= 96


class LongStream(ReaderBase):
    """Two hours of 30 frames/s, 340 x 256, made when they are read; notes resident memory."""

    frame_count = 2 * 3600 * 30

    def __init__(self) -> None:
        self.resident: list[int] = []

    def read(self, ids: Sequence[int]) -> Frames:
        if ids[0] % 6400 < len(ids):
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            self.resident.append(pages * resource.getpagesize())
        return np.full((len(ids), 256, 340, 3), ids[0] % 251, dtype=np.uint8)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_memory_is_flat_over_two_hours(tiny: VideoClassifier) -> None:
    """All 54,000 windows at stride 4 hold 11.6 GB of pixels; what is resident must not move."""
    video = LongStream()
    rule = WindowRule(stride=4, length=4, frame_stride=4)
    settings = FeatureSettings(rule, (32, 32), "squash", UNIT)
    windows = 0
    with closing(clip_features(FrozenFeatures(tiny), video, settings, batch=64)) as parts:
        for part in parts:
            windows += len(part)
    assert windows == rule.count(LongStream.frame_count) == 53_997
    early, late = video.resident[2:8], video.resident[8:]
    assert len(late) >= 20
    assert max(late) - max(early) < 24 * 2**20  # a tenth of a percent of the frames would be 56 MB


def test_refusals(tiny: VideoClassifier) -> None:
    with pytest.raises(ValueError, match="crops are square"):
        FeatureSettings(size=(32, 48))
    with pytest.raises(ValueError, match="preset 'k400' is not one of thumos14, fineaction"):
        preset("k400")
    with pytest.raises(ValueError, match="layer 3: the model has layers 1 to 2"):
        FrozenFeatures(tiny, layer=3)
    odd = replace(SMALL, windows=WindowRule(length=3))
    with pytest.raises(ValueError, match="frames 3 is not a positive multiple of tubelet_size 2"):
        video_features(FrozenFeatures(tiny), store(9), odd)


def test_frames_in_order_are_those_read_by_number(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 30)
    with open_video(path) as video:
        ids = [0, 1, 5, 13, 14, 29]
        assert np.array_equal(np.stack(list(read_in_order(video, ids))), video.read(ids))
        with pytest.raises(IndexError, match="frame 3 after 3"):
            list(read_in_order(video, [3, 3]))
        with pytest.raises(IndexError, match="of a video of 30"):
            list(read_in_order(video, [30]))
        assert frames_per_second(video, path) == pytest.approx(25)
    assert frames_per_second(store(3), tmp_path) is None
    assert frames_per_second(store(3), path) == pytest.approx(25)
