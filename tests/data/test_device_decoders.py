"""Decoders of the training device: the frames that were asked for, and bad files."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest
import torch

from tests.support.videos import read_numbers, write_audio, write_video
from videomae_fast.data import ClipDataset, PipelineStats, Source, clip_loader
from videomae_fast.data.decoders import open_video
from videomae_fast.data.decoders.excerpt import excerpt
from videomae_fast.data.decoders.pyav import PyAVReader
from videomae_fast.data.device.base import EncodedClip
from videomae_fast.data.device.dali import DaliDecoder
from videomae_fast.data.device.decoders import NAMES, find_device_decoder
from videomae_fast.data.errors import DecodeError
from videomae_fast.errors import BackendUnavailableError

HAS_DALI = find_spec("nvidia") is not None and find_spec("nvidia.dali") is not None
IDS = (0, 4, 7, 7, 30, 59, 12)
VP9 = {"g": "12", "deadline": "realtime", "cpu-used": "8"}
OPTIONS = {"libvpx-vp9": VP9, "libvpx": VP9, "libx264": {"g": "16"}, "libx265": {"g": "16"}}
GPU_CASES = [(name, codec) for name in NAMES for codec in ("libx264", "libx265", "libvpx-vp9")]


def cases():
    without = pytest.mark.skipif(not HAS_DALI, reason="DALI is not installed")
    for codec in ("libvpx-vp9", "libvpx"):
        yield pytest.param(("dali", "cpu", codec), marks=without, id=f"dali-cpu-{codec}")
    gpu = [
        pytest.mark.gpu,
        pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    ]
    for name, codec in GPU_CASES:
        yield pytest.param((name, "cuda", codec), marks=gpu, id=f"{name}-cuda-{codec}")


@pytest.fixture(params=list(cases()))
def decoder(request):
    name, device, codec = request.param
    made = find_device_decoder(name, torch.device(device)).make(torch.device(device))
    made.codec = codec
    yield made
    made.close()


def clip(path, ids=IDS):
    return EncodedClip(torch.from_numpy(np.fromfile(path, dtype=np.uint8)), tuple(ids), 60)


def video(path, codec, **settings):
    return write_video(path, codec=codec, options=OPTIONS[codec], **settings)


def test_frames_are_those_of_the_cpu_decoder(decoder, tmp_path):
    sizes = [(112, 84), (118, 150), (126, 86)]  # one of them upright, none of them multiples of 16
    paths = [video(tmp_path / f"{i}.mkv", decoder.codec, size=size) for i, size in enumerate(sizes)]
    results = decoder.decode([clip(path) for path in paths])
    for path, found, (width, height) in zip(paths, results, sizes, strict=True):
        assert found.shape == (len(IDS), height, width, 3)
        assert found.dtype == torch.uint8
        frames = found.cpu().numpy()
        assert read_numbers(frames) == list(IDS)
        with open_video(path) as reader:
            truth = reader.read(IDS)
        apart = np.abs(frames.astype(int) - truth.astype(int))
        assert apart.mean() < 3  # the conversion from YUV differs
        assert np.percentile(apart, 99) < 24  # and chroma at edges


def test_a_part_of_a_video_has_the_same_frames(decoder, tmp_path):
    options = {**OPTIONS[decoder.codec], "x265-params": "open-gop=0:keyint=16:log-level=error"}
    path = write_video(tmp_path / "a.mkv", codec=decoder.codec, options=options)
    wanted = (40, 44, 37, 44)
    with PyAVReader(path) as whole:
        part = excerpt(whole, wanted)
    assert part is not None
    assert part.frame_count < 40
    numbers = tuple(number - part.first for number in wanted)
    found, expected = decoder.decode(
        [EncodedClip(torch.from_numpy(part.data), numbers, part.frame_count), clip(path, wanted)]
    )
    assert read_numbers(found.cpu().numpy()) == list(wanted)
    assert torch.equal(found, expected)


def test_a_variable_frame_rate_keeps_its_numbers(decoder, tmp_path):
    times = np.cumsum([40, 10, 200, 33] * 15).tolist()
    path = video(tmp_path / "vfr.mkv", decoder.codec, times=times)
    (found,) = decoder.decode([clip(path)])
    assert read_numbers(found.cpu().numpy()) == list(IDS)


def test_more_clips_than_a_batch_and_another_batch(decoder, tmp_path):
    path = video(tmp_path / "a.mkv", decoder.codec)
    wanted = [(i, i + 20) for i in range(19)]
    for _ in range(2):
        found = decoder.decode([clip(path, ids) for ids in wanted])
        assert [tuple(read_numbers(one.cpu().numpy())) for one in found] == wanted


def test_results_stay_what_they_are(decoder, tmp_path):
    """Buffers of the decoder that are used again must not show through."""
    path = video(tmp_path / "a.mkv", decoder.codec)
    (first,) = decoder.decode([clip(path, (1, 2))])
    before = first.clone()
    decoder.decode([clip(path, (40, 50))])
    assert torch.equal(first, before)


@pytest.mark.parametrize("bad", ["zeros", "empty", "audio only"])
def test_a_bad_file_does_not_take_the_others_with_it(decoder, tmp_path, bad):
    good = video(tmp_path / "good.mkv", decoder.codec)
    if bad == "audio only":
        write_audio(tmp_path / "bad.mkv")
    else:
        (tmp_path / "bad.mkv").write_bytes(bytes(1000 if bad == "zeros" else 0))
    clips = [clip(good), clip(tmp_path / "bad.mkv", (3, 9)), clip(good, (5,))]
    for _ in range(2):
        before, failed, after = decoder.decode(clips)
        assert isinstance(failed, DecodeError)
        assert failed.reason
        assert "\n" not in failed.reason
        assert read_numbers(before.cpu().numpy()) == list(IDS)
        assert read_numbers(after.cpu().numpy()) == [5]


def test_numbers_beyond_the_end_never_reach_a_decoder():
    """DALI makes up frames for them."""
    for ids in ((3, 60), (-1,)):
        with pytest.raises(ValueError, match="of a video of 60 frames"):
            EncodedClip(torch.zeros(1, dtype=torch.uint8), ids, 60)


def test_what_can_not_be_used_is_told():
    with pytest.raises(ValueError, match="is not one of dali, torchcodec-cuda"):
        find_device_decoder("nvdec", torch.device("cpu"))
    with pytest.raises(BackendUnavailableError, match="decodes on a GPU, not on cpu"):
        find_device_decoder("torchcodec-cuda", torch.device("cpu"))
    with pytest.raises(ValueError, match="must be at least 1"):
        DaliDecoder(torch.device("cpu"), batch=0)


@pytest.mark.skipif(not HAS_DALI, reason="DALI is not installed")
def test_codecs_of_the_cpu_exclude_h264(tmp_path):
    kind = find_device_decoder("dali", torch.device("cpu"))
    assert "h264" not in kind.codecs(torch.device("cpu"))
    (found,) = kind.make(torch.device("cpu")).decode([clip(write_video(tmp_path / "a.mp4"))])
    assert isinstance(found, DecodeError)


@pytest.mark.skipif(not HAS_DALI, reason="DALI is not installed")
@pytest.mark.parametrize("workers", [0, 2])
def test_a_pipeline_that_decodes_on_the_device(tmp_path, workers):
    """What it can decode it decodes, the rest comes from the loader processes; both in order."""
    lines = []
    for i, codec in enumerate(["libvpx-vp9", "libx264", "libvpx-vp9", "libvpx"]):
        path = write_video(tmp_path / f"{i}.mkv", 40 + i, codec=codec, options=OPTIONS[codec])
        lines.append(f"{path} 0 -1\n")
    lines.append("/nowhere.mp4 0 -1\n")
    (tmp_path / "list.csv").write_text("".join(lines))

    def batches(**options):
        dataset = ClipDataset(
            [Source(tmp_path / "list.csv")], frames=4, image_size=80, samples=2, stride=2
        )
        run = {"videos_per_step": 5, "total_steps": 3}
        return list(clip_loader(dataset, **run, **options))

    stats = PipelineStats(workers)
    plain = batches()
    found = batches(device_decoder="dali", workers=workers, stats=stats)
    for one, other in zip(plain, found, strict=True):
        assert one.names == other.names
        assert torch.equal(one.ok, other.ok)
        assert torch.equal(one.mask_seeds, other.mask_seeds)
        assert [str(f) for f in one.failures] == [str(f) for f in other.failures] != []
        apart = (one.frames.int() - other.frames.int()).abs().float()
        assert apart.mean() < 3
        for clip, name in enumerate(name for name in one.names for _ in range(2)):
            if "1.mkv" in name:  # decoded by the same decoder
                assert not apart[clip].any()
    assert stats.kept_back == {"codec h264": 3}
    assert not all(torch.equal(a.frames, b.frames) for a, b in zip(plain, found, strict=True))
