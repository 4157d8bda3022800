"""Checkpoints of every make are read as torch reads them, without their pickles being run."""

from __future__ import annotations

import argparse
import collections
import datetime
import enum
import pathlib
import pickle
import struct
import time
import tracemalloc
import types
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.support.random_weights import same
from videomae_fast.errors import WeightsError
from videomae_fast.interop import load_weights

STATE = {"a.weight": torch.arange(4.0), "b": torch.ones(2)}


class Colour(enum.Enum):
    RED = 1


class Own:
    """A class of the caller's, which no reader may make."""

    made = 0

    def __init__(self) -> None:
        self.x = {(1, (2, 3)): {4}, "y": frozenset({5})}

    def __setstate__(self, state: Any) -> None:
        type(self).made += 1


def kinds_of_tensors() -> dict[str, Tensor]:
    whole = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    attributed = whole + 1
    attributed.note = "a reason"  # type: ignore[attr-defined]
    return {
        "attributed": attributed,
        "whole": whole,
        "view": whole[2:, 3],
        "turned": whole.T,
        "scalar": torch.tensor(3.5),
        "empty": torch.empty(0, 7),
        "half": whole.half(),
        "bfloat16": whole.bfloat16(),
        "double": whole.double(),
        "int64": torch.arange(5),
        "uint16": torch.arange(5).to(torch.uint16),
        "float8": whole.to(torch.float8_e4m3fn),
        "bool": whole > 0,
        "complex": torch.complex(whole, whole),
        "parameter": torch.nn.Parameter(whole),
        "buffer": torch.nn.Buffer(whole),
    }


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_kind_of_tensor_is_what_torch_reads(
    zipped: bool, protocol: int, tmp_path: Path
) -> None:
    state, file = kinds_of_tensors(), tmp_path / "w.pth"
    if not zipped:  # which torch writes there and can't read
        del state["uint16"], state["float8"]
    torch.save(
        collections.OrderedDict(state), file,
        _use_new_zipfile_serialization=zipped, pickle_protocol=protocol,
    )  # fmt: skip
    found, truth = load_weights(file), torch.load(file, weights_only=False)
    assert found.keys() == truth.keys()
    for key, value in truth.items():
        assert (found[key].dtype, found[key].shape) == (value.dtype, value.shape), key
        assert found[key].stride() == value.stride(), key
        assert torch.equal(found[key].double() if key == "float8" else found[key],
                           value.double() if key == "float8" else value.data), key  # fmt: skip
    found["whole"].mul_(2)  # its memory is the file's, and the file stays
    assert same(load_weights(file), load_weights(file))
    assert torch.equal(load_weights(file)["whole"], state["whole"])


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_what_stands_beside_the_weights_is_read_past(
    zipped: bool, protocol: int, tmp_path: Path
) -> None:
    """None of it is made, so that nothing of a class's code runs and none has to be installed."""
    beside = {
        "args": argparse.Namespace(lr=1e-3, betas=[0.9, 0.95], output=pathlib.PurePosixPath("a/b")),
        "path": pathlib.Path("x"),
        "best": np.float64(71.5),
        "epoch": np.int64(3),
        "curve": np.arange(12.0).reshape(3, 4),
        "names": np.array(["a", None], dtype=object),
        "when": datetime.datetime(2024, 1, 2),
        "colour": Colour.RED,
        "own": Own(),
        "simple": types.SimpleNamespace(a=1),
        "default": collections.defaultdict(list, {1: [2]}),
        "counter": collections.Counter("abca"),
        "more": ({1, 2}, frozenset({3}), complex(1, 2), b"bytes", bytearray(b"x"), 2**99, None),
        "random": (torch.get_rng_state(), np.random.default_rng(0).bit_generator.state),
        "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"params": [0]}]},
    }
    beside["loop"] = [beside]
    file = tmp_path / "w.pth"
    torch.save(
        {"model": STATE, **beside}, file,
        _use_new_zipfile_serialization=zipped, pickle_protocol=protocol,
    )  # fmt: skip
    assert same(load_weights(file), STATE)
    assert Own.made == 0


def test_files_are_known_by_their_contents(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file(STATE, tmp_path / "really-safetensors.bin")
    torch.save(STATE, tmp_path / "really-torch.safetensors")
    for file in tmp_path.iterdir():
        assert same(load_weights(file), STATE), file


def test_checkpoints_without_checksums_are_read(tmp_path: Path) -> None:
    computes = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(STATE, tmp_path / "w.pth")
    finally:
        torch.serialization.set_crc32_options(computes)
    assert same(load_weights(tmp_path / "w.pth"), STATE)


@pytest.mark.parametrize("where", ["data/0", "data.pkl"])
def test_a_flipped_bit_is_noticed(where: str, tmp_path: Path) -> None:
    file = tmp_path / "w.pth"
    torch.save(STATE, file)
    data = bytearray(file.read_bytes())
    if where == "data/0":
        at = data.index(struct.pack("<4f", 0, 1, 2, 3)) + 5
    else:
        at = data.index(b"a.weight")
    data[at] ^= 4
    file.write_bytes(data)
    with pytest.raises(WeightsError, match=r"w\.pth: .*checksum .*differs.*download it again"):
        load_weights(file)


def archive(file: Path, pickled: bytes, storages: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(file, "w") as made:
        made.writestr("archive/data.pkl", pickled)
        made.writestr("archive/byteorder", "little")
        for key, data in storages.items():
            made.writestr(f"archive/data/{key}", data)
    return file


class Storage:
    """What torch writes as the persistent id of a storage."""

    def __init__(self, count: int, key: str = "0") -> None:
        self.said = ("storage", torch.FloatStorage, key, "cpu", count)


class Claim:
    """A tensor that is described but not there."""

    def __init__(self, storage: Storage, size: Any, stride: Any, offset: Any = 0) -> None:
        self.arguments = storage, offset, size, stride, False, collections.OrderedDict()

    def __reduce__(self) -> Any:
        return torch._utils._rebuild_tensor_v2, self.arguments


def pickled(value: Any) -> bytes:
    import io

    class Pickler(pickle.Pickler):
        def persistent_id(self, part: Any) -> Any:
            return part.said if isinstance(part, Storage) else None

    written = io.BytesIO()
    Pickler(written, protocol=2).dump(value)
    return written.getvalue()


@pytest.mark.parametrize(
    ("claim", "told"),
    [
        (Claim(Storage(750_000_000), (750_000_000,), (1,)), "claims 3,000,000,000 bytes"),
        (Claim(Storage(4), (750_000_000,), (0,)), "claims 750,000,000 values"),
        (Claim(Storage(4), (2, 3), (3, 1)), "claims 6 values up to place 5"),
        (Claim(Storage(4), (4,), (2,)), "up to place 6 of a storage that has 4"),
        (Claim(Storage(4), (4,), (1,), 1), "up to place 4"),
        (Claim(Storage(4), (2, 2), (1, 1)), "values overlap"),
        (Claim(Storage(4), (4,), (1,), -1), "no row of numbers"),
        (Claim(Storage(4), (4.5,), (1,)), "no row of numbers"),
        (Claim(Storage(4), (4,), (1, 1)), "1 sizes and 2 strides"),
        (Claim(Storage(-1), (1,), (1,)), "claims -4 bytes"),
        (Claim(Storage(4, "9"), (4,), (1,)), "storage '9' is not in the file"),
        (Claim(Storage(2**70), (1,), (1,)), "claims"),
    ],
)
def test_what_the_file_does_not_hold_is_not_allocated(
    claim: Claim, told: str, tmp_path: Path
) -> None:
    file = archive(tmp_path / "w.pth", pickled({"model": {"x": claim}}), {"0": bytes(16)})
    with pytest.raises(WeightsError, match=rf"w\.pth: x can't be read .*{told}"):
        load_weights(file)


def test_old_files_that_claim_more_than_they_hold(tmp_path: Path) -> None:
    file = tmp_path / "w.pth"
    torch.save({"x": torch.arange(4.0)}, file, _use_new_zipfile_serialization=False)
    data = file.read_bytes()
    assert data[-24:-16] == struct.pack("<q", 4)
    for count in (750_000_000, -1, 3):
        file.write_bytes(data[:-24] + struct.pack("<q", count) + data[-16:])
        with pytest.raises(WeightsError, match=r"w\.pth: .*(claims|bytes follow)"):
            load_weights(file)


def test_one_memory_under_many_names_is_not_a_large_model(tmp_path: Path) -> None:
    tensor = torch.zeros(100_000)
    torch.save({str(i): tensor for i in range(50)}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"w\.pth: its tensors take 20,000,000 bytes"):
        load_weights(tmp_path / "w.pth")


def laughs() -> bytes:
    """Tuples of two references to the tuple before, 60 deep, as a key: its hash takes for ever."""
    doubled = b"".join(b"h%ch%c\x86q%c" % (i, i, i + 1) for i in range(60))
    return b"\x80\x02}(N\x85q\x00" + doubled + b"K\x01u."


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x80\x02}" + b"X\x05\0\0\0model}" * 10**6 + b"s" * 10**6 + b".", id="dicts"),
        pytest.param(b"\x80\x02N" + b"\x85" * 10**5 + b".", id="tuples"),
        pytest.param(b"\x80\x02}N" + b"\x85" * 5 * 10**5 + b"K\x01s.", id="deep key"),
        pytest.param(b"\x80\x02" + b"]" * 10**5 + b"a" * (10**5 - 1) + b".", id="lists"),
        pytest.param(b"\x80\x02" + b"(" * 10**5 + b"t" * 10**5 + b".", id="marks"),
        pytest.param(b"\x80\x02" + b"}" * 2 * 10**6 + b".", id="objects"),
        pytest.param(b"\x80\x02}r\xff\xff\xff\x7f.", id="memo"),
        pytest.param(b"\x80\x02\x8b\xff\xff\xff\x7f.", id="number"),
        pytest.param(b"\x80\x04\x96" + b"\xff" * 7 + b"\x7f.", id="bytes"),
        pytest.param(laughs(), id="laughs"),
    ],
)
def test_time_and_memory_are_bounded(data: bytes, tmp_path: Path) -> None:
    zipped = archive(tmp_path / "zip.pth", data, {})
    (tmp_path / "stream.pth").write_bytes(data)
    small = len(data) < 1000
    for file in (zipped, tmp_path / "stream.pth") if small else (zipped,):
        if small:
            tracemalloc.start()
        begin = time.process_time()
        with pytest.raises(WeightsError, match=rf"{file.name}: "):
            load_weights(file)
        assert time.process_time() - begin < 10
        if small:
            assert tracemalloc.get_traced_memory()[1] < 10_000_000
            tracemalloc.stop()


@pytest.mark.parametrize(
    ("contents", "told"),
    [
        (b"", "the file is empty"),
        (b"<html>quota</html>", "a web page .*quota.*in a browser"),
        (b"\xef\xbb\xbf\n<!DOCTYPE html><p>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 376912",
         "a Git LFS pointer, .* of 376,912 bytes; .*git lfs pull"),
        (b'{"error": "Repository not found"}', "JSON .*Repository not found"),
        (b"Access denied.\n", "text .*Access denied"),
        (b"\x1f\x8b\x08\0\0\0", "packed with gzip; unpack it"),
        (b"a\0" * 128 + b"\0ustar  ", "a tar archive; unpack it"),
        (b"\x89HDF\r\n", "an HDF5 file"),
        (bytes(range(256)), "damaged or not whole"),
        (b"\x80\x04N.", "a Python pickle of something else"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_what_is_no_weights_file_is_called_what_it_is(
    contents: bytes, told: str, name: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(contents)
    with pytest.raises(WeightsError, match=f"{name}: not .*{told}") as raised:
        load_weights(tmp_path / name)
    assert "weights_only" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_other_things_in_archives_and_checkpoints(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "photos.pth", "w") as made:
        made.writestr("a/1.jpg", "x")
    torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)).save(tmp_path / "script.pth")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pth")
    torch.save({"model": {"x": np.ones(2)}}, tmp_path / "numpy.pth")
    (tmp_path / "nothing.pth").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    torch.save({"x": torch.ones(2, dtype=torch.cfloat).conj()}, tmp_path / "conjugate.pth")
    torch.save({"x": torch.eye(3).to_sparse()}, tmp_path / "sparse.pth")
    with zipfile.ZipFile(tmp_path / "packed.pth", "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("archive/data.pkl", pickled({}) + bytes(1000))
    for name, told in {
        "photos": r"an archive of other things: a/1\.jpg",
        "script": "a TorchScript program; save the state dict",
        "module": r"holds a torch\.nn\.modules\.linear\.Linear, not a state dict; save model\.stat",
        "numpy": r"x \(numpy.*\) in it",
        "conjugate": r"x \(tensor with the conj or neg bit\) in it",
        "sparse": r"x \(torch\._utils\._rebuild_sparse_tensor\) in it",
        "nothing": "not a state dict: nothing in it",
        "packed": "is compressed, which torch never does",
    }.items():
        with pytest.raises(WeightsError, match=rf"{name}\.pth: .*{told}"):
            load_weights(tmp_path / f"{name}.pth")


def test_pipes_folders_and_forbidden_files_are_no_weights(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe.pth")
    for path in (tmp_path / "pipe.pth", tmp_path):
        with pytest.raises(WeightsError, match="no weights file but"):
            load_weights(path)
    with pytest.raises(WeightsError, match=r"can't be read|no such weights file"):
        load_weights(tmp_path / "a\0b.pth")
