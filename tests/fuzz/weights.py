"""Damaged weights: each is read as it was, or refused in a sentence that names the file.

Files of every layout are damaged as disks and downloads damage them, and as somebody would who
means harm: sizes that no file holds, nesting without end. A finding is any other error, other
weights than the file's, more than ``MOST_SECONDS``, or more than ``MOST_BYTES`` of memory. Values
have no checksum in safetensors and in torch's old format: damaged ones are other values there, of
the same names and shapes. Crafted files have right checksums, and may hold other weights.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import io
import json
import os
import random
import re
import shutil
import signal
import struct
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.support.random_weights import TINY, TOLD, TOLD_CLASSIFIER, classifier, pretraining
from videomae_fast import MAEConfig
from videomae_fast.errors import WeightsError
from videomae_fast.interop import (
    ConversionOptions,
    SourceHints,
    convert,
    from_hugging_face,
    load_weights,
    read_weights,
    write_weights,
)
from videomae_fast.tasks.trained import load_model
from videomae_fast.training import checkpoint
from videomae_fast.training.errors import CheckpointError

FULL = 5000
MOST_SECONDS = 2.0
MOST_BYTES = 500_000_000
_HANGS = 20  # seconds of computing after which a case is given up
_UNNAMED = ("old.pth", "official.safetensors")
"""Names have no checksum there either, and `load_weights` knows no model that they have to fit."""
_BATCH = 250  # cases for each child process, so that a crash costs no more than itself

State = dict[str, Tensor]
Read = Callable[[Path], State]


@dataclass(frozen=True)
class Source:
    """Healthy weights. values_from: where values without a checksum begin, by file."""

    name: str
    path: Path
    readers: dict[str, Read]
    values_from: dict[str, int]


def run(count: int, seed: int, folder: Path) -> Iterator[str]:
    """Yields a line for each finding; `folder` is empty."""
    sources = healthy(folder)
    truths = {
        (source.name, name): read(source.path)
        for source in sources
        for name, read in source.readers.items()
    }
    done = 0
    while done < count:
        report = folder / "report"
        report.write_text("")
        child = os.fork()
        if child == 0:
            gc.freeze()  # else a collection in a case copies every object of the parent's
            status = 1
            try:
                with report.open("a", buffering=1) as file:
                    for case in range(done, min(count, done + _BATCH)):
                        print(f"case {case}", file=file)
                        for line in _case(case, seed, folder, sources, truths):
                            print(line, file=file)
                status = 0
            finally:  # what the parent would do at its end is not the child's to do
                os._exit(status)
        _, status = os.waitpid(child, 0)
        lines = report.read_text().splitlines()
        cases = [line for line in lines if line.startswith("case ")]
        yield from (line for line in lines if not line.startswith("case "))
        if status:
            yield f"{cases[-1]} of seed {seed}: ended the process with status {status}"
        done += len(cases)


def _case(
    case: int, seed: int, folder: Path, sources: list[Source], truths: dict[tuple[str, str], State]
) -> Iterator[str]:
    rng = random.Random(f"{seed} {case}")
    source = rng.choice(sources)
    reader = rng.choice(sorted(source.readers))
    with tempfile.TemporaryDirectory(dir=folder) as inside:
        place = Path(inside) / source.path.name
        copy = shutil.copytree if source.path.is_dir() else shutil.copy
        copy(source.path, place)
        damage, strict = _damage(rng, place, source)
        if reader == "load_weights" and source.name in _UNNAMED:
            strict = "nothing"
        outcome = _outcome(source.readers[reader], place, truths[source.name, reader], strict)
    if outcome:
        yield f"number {case} of seed {seed}, {source.name} by {reader}, {damage}: {outcome}"


def _outcome(read: Read, place: Path, truth: State, strict: str) -> str:
    """What is wrong with how damaged weights were read; "" for nothing.

    strict: "bits", "shapes" (values may differ) or "nothing" (other weights are right too).
    """
    before = _memory(peak=False)
    begin = time.process_time()
    signal.signal(signal.SIGPROF, _give_up)
    signal.setitimer(signal.ITIMER_PROF, _HANGS)
    found: State | None = None
    try:
        found = read(place)
    except (WeightsError, CheckpointError) as error:
        said = str(error)
        if str(place) not in said or "\n" in said or len(said) > 2000:
            return f"not a sentence that names the file: {said[:300]!r}"
    except (Exception, _HangError) as error:
        return f"{type(error).__name__}: {error}"[:300]
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    seconds, more = time.process_time() - begin, _memory(peak=True) - before
    if seconds > MOST_SECONDS:
        return f"took {seconds:.1f} s"
    if more > MOST_BYTES:
        return f"took {more / 1e6:.0f} MB"
    if found is None or strict == "nothing":
        return ""
    if {k: (v.shape, v.dtype) for k, v in found.items()} != {
        k: (v.shape, v.dtype) for k, v in truth.items()
    }:
        return "other names, shapes or dtypes"
    if strict == "bits":
        wrong = [key for key, value in truth.items() if not torch.equal(found[key], value)]
        if wrong:
            return f"other values in {wrong[:3]}"
    return ""


class _HangError(BaseException):
    """Out of every net."""


def _give_up(*_: Any) -> None:
    raise _HangError(f"gave up after {_HANGS} s")


# glibc's; another libc gives nothing back
_GIVE_BACK: Callable[[int], object] = getattr(ctypes.CDLL(None), "malloc_trim", lambda _: 0)


def _memory(*, peak: bool) -> int:
    """Bytes that this process holds, or held at most since the last call without `peak`.

    What was freed goes back to the system first: used again, it would hide what is taken.
    """
    if not peak:
        _GIVE_BACK(0)
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text().splitlines()
    line = next(line for line in status if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def healthy(folder: Path) -> list[Source]:
    """Weights of each layout, as they are before they are damaged."""
    folder = folder / "healthy"
    folder.mkdir()
    whole, heads = pretraining(), classifier()
    args = argparse.Namespace(model="tiny", betas=[0.9, 0.95], output=Path("a"))
    optimizer = {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 1e-3}]}
    official = {"model": whole, "optimizer": optimizer, "epoch": 7, "args": args}
    torch.save(official, folder / "zip.pth")
    torch.save(official, folder / "old.pth", _use_new_zipfile_serialization=False)
    wrapped = {f"model.backbone.{key}": value for key, value in heads.items()}
    torch.save({"state_dict": wrapped}, folder / "wrapped.ckpt")
    save_file(whole, folder / "official.safetensors")
    weights = read_weights(folder / "official.safetensors", TOLD)
    write_weights(weights, folder / "ours.safetensors", "ours")
    write_weights(weights, folder / "hf", "hugging-face")
    found = read_weights(folder / "wrapped.ckpt", TOLD_CLASSIFIER)
    write_weights(
        found.with_changes(labels=tuple("abcdefg")), folder / "hf-classes", "hugging-face"
    )
    write_weights(found, folder / "mmaction2.pth", "mmaction2")
    _shards(folder / "hf", folder / "hf-shards")
    _old_names(folder / "hf", folder / "hf-old")
    (folder / "deepspeed" / "global_step7").mkdir(parents=True)
    states = folder / "deepspeed" / "global_step7" / "mp_rank_00_model_states.pt"
    torch.save({"module": {f"module.{k}": v for k, v in whole.items()}, "ds_version": "1"}, states)
    (folder / "deepspeed" / "latest").write_text("global_step7")
    said = {
        "step": 3,
        "model": MAEConfig(**TINY).to_dict(),
        "model_options": {"normalize_target": True, "ignore_flat_cubes": False},
    }
    (folder / "run").mkdir()
    run_at = folder / "run" / "checkpoints" / checkpoint.folder_name(3)
    checkpoint.save(run_at, whole, {"exp_avg.x": torch.ones(2)}, said)

    def source(name: str, told: SourceHints | None = TOLD, **readers: Read) -> Source:
        path = folder / name
        files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
        return Source(
            name,
            path,
            {"read_weights": _reading(told), "convert": _converting(told), **readers},
            {file.name: _values_from(file) for file in files},
        )

    hugging_face: Read = lambda path: dict(from_hugging_face(path).state)  # noqa: E731
    model: Read = lambda path: dict(load_model(path)[0].state_dict())  # noqa: E731
    return [
        source("zip.pth", load_weights=load_weights),
        source("old.pth", load_weights=load_weights),
        source("wrapped.ckpt", TOLD_CLASSIFIER, load_weights=load_weights),
        source("official.safetensors", load_weights=load_weights),
        source("mmaction2.pth", TOLD_CLASSIFIER, load_weights=load_weights),
        source("ours.safetensors", None, load_model=model),
        source("hf", None, from_hugging_face=hugging_face),
        source("hf-classes", None, from_hugging_face=hugging_face),
        source("hf-shards", None, from_hugging_face=hugging_face),
        source("hf-old", None, from_hugging_face=hugging_face),
        source("deepspeed"),
        source("run", None),
    ]


def _reading(told: SourceHints | None) -> Read:
    return lambda path: dict(read_weights(path, told).state)


def _converting(told: SourceHints | None) -> Read:
    def read(path: Path) -> State:
        with tempfile.TemporaryDirectory(dir=path.parent) as inside:
            target = Path(inside) / "converted.safetensors"
            try:
                convert(path, target, ConversionOptions("ours"), told)
            except WeightsError:
                if os.listdir(inside):
                    raise ValueError("a file was left behind") from None
                raise
            return {key: value.clone() for key, value in load_weights(target).items()}

    return read


def _shards(whole: Path, folder: Path) -> None:
    shutil.copytree(whole, folder)
    state = load_weights(whole / "model.safetensors")
    (folder / "model.safetensors").unlink()
    places = {key: f"model-0000{1 + i % 3}-of-00003.safetensors" for i, key in enumerate(state)}
    for name in set(places.values()):
        save_file({key: state[key].clone() for key in state if places[key] == name}, folder / name)
    index = {"metadata": {"total_size": 1}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _old_names(whole: Path, folder: Path) -> None:
    shutil.copytree(whole, folder)
    torch.save(load_weights(whole / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def _values_from(file: Path) -> int:
    """Where values without a checksum begin; past the end where all bytes have one."""
    data = file.read_bytes()
    if file.suffix == ".safetensors" and "checkpoints" not in file.parts:
        return 8 + struct.unpack("<Q", data[:8])[0]
    if file.name == "old.pth":  # each storage with its length, at the end
        tensors = [*pretraining().values(), torch.tensor(1.0)]
        return len(data) - sum(8 + value.nbytes for value in tensors)
    return len(data)


def _damage(rng: random.Random, place: Path, source: Source) -> tuple[str, str]:
    """Damages one file; returns what was done, and how strictly weights are compared."""
    files = [place] if place.is_file() else sorted(f for f in place.rglob("*") if f.is_file())
    file = rng.choice(files)
    name = "" if file == place else f"{file.name} "
    data = bytearray(file.read_bytes())
    kind = rng.choice([*_DAMAGES, "crafted"])
    if kind == "crafted":
        done, data = _craft(rng, data)
        file.write_bytes(data)
        return f"{name}{done}", "nothing"
    if kind == "other":
        other = rng.choice(_OTHERS)
        file.write_bytes(other)
        return f"{name}is {other[:20]!r}", "bits"
    if kind == "gone":
        file.unlink()
        return f"{name}is gone", "bits"
    at, width = _DAMAGES[kind](rng, data)
    file.write_bytes(data)
    begins = source.values_from[file.name]
    text = file.suffix == ".json"  # numbers and names in it have no checksum
    kept = kind in ("flip", "bits", "zeros", "number")
    strict = "nothing" if text else "shapes" if kept and at + width > begins else "bits"
    return f"{name}{kind} at {at} of {len(data)}", strict


def _at(rng: random.Random, data: bytearray) -> int:
    """A place, rather often near the ends, where structure is."""
    where = rng.choice(["begin", "end", "all"])
    if where == "begin":
        return rng.randrange(min(len(data), 4096))
    if where == "end":
        return len(data) - 1 - rng.randrange(min(len(data), 4096))
    return rng.randrange(len(data))


def _flip(rng: random.Random, data: bytearray) -> tuple[int, int]:
    at = _at(rng, data)
    data[at] ^= 1 << rng.randrange(8)
    return at, 1


def _bits(rng: random.Random, data: bytearray) -> tuple[int, int]:
    places = [_flip(rng, data)[0] for _ in range(rng.randrange(2, 40))]
    return min(places), max(places) + 1 - min(places)


def _cut(rng: random.Random, data: bytearray) -> tuple[int, int]:
    at = _at(rng, data)
    del data[at:]
    return at, 1


def _zeros(rng: random.Random, data: bytearray) -> tuple[int, int]:
    at = _at(rng, data)
    width = min(rng.choice([1, 8, 512, 4096]), len(data) - at)
    data[at : at + width] = bytes(width)
    return at, width


def _number(rng: random.Random, data: bytearray) -> tuple[int, int]:
    """A size as no file has it, in the place of another."""
    at, width = _at(rng, data), rng.choice([1, 2, 4, 8])
    number = rng.choice([0, 1, 1 << 30, (1 << 31) - 1, (1 << 32) - 1, 1 << 62, (1 << 64) - 1])
    found = (number % (1 << 8 * width)).to_bytes(width, rng.choice(["little", "big"]))
    width = min(width, len(data) - at)
    data[at : at + width] = found[:width]
    return at, width


def _moved(rng: random.Random, data: bytearray) -> tuple[int, int]:
    at, width = _at(rng, data), rng.choice([1, 7, 512])
    if rng.random() < 0.5:
        del data[at : at + width]
    else:
        data[at:at] = rng.randbytes(width)
    return at, width


_DAMAGES: dict[str, Callable[[random.Random, bytearray], tuple[int, int]]] = {
    "flip": _flip,
    "bits": _bits,
    "cut": _cut,
    "zeros": _zeros,
    "number": _number,
    "moved": _moved,
    "other": _flip,
    "gone": _flip,
}
_OTHERS = (
    b"",
    b"\0" * 5000,
    b"<!DOCTYPE html><html><body>quota exceeded",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n",
    b'{"error": "not found"}',
    b"[" * 200_000,
    b'{"a":' * 200_000,
    b"\x80\x02}" + b"X\x05\0\0\0model}" * 100_000 + b"s" * 100_000 + b".",
    b"\x80\x02N" + b"\x85" * 500_000 + b".",
    b"PK\5\6" + bytes(18),
    b"\xff\xff\xff\xff\xff\xff\xff\x7f{}",
    b"\x02\0\0\0\0\0\0\0{}",
)
_WORDS = (
    b"-1", b"0", b"1e999", b"NaN", b"null", b"true", b'"x"', b"[]", b"{}", b"[[1]]", b"1" * 5000,
    b"1000000000", b"9223372036854775807", b"18446744073709551616", b"0.5", b"3",
)  # fmt: skip


def _craft(rng: random.Random, data: bytearray) -> tuple[str, bytes]:
    """Damage behind the checksums: in the pickle of an archive, or in JSON, made whole again."""
    if data.startswith(b"PK\3\4"):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = {info.filename: archive.read(info) for info in archive.infolist()}
        name = next(name for name in entries if name.endswith("data.pkl"))
        pickled = bytearray(entries[name])
        for _ in range(rng.choice([1, 1, 2, 8])):
            rng.choice([_flip, _number, _moved, _word])(rng, pickled)
        written = io.BytesIO()
        with zipfile.ZipFile(written, "w") as made:
            for each, content in entries.items():
                made.writestr(each, bytes(pickled) if each == name else content)
        return "with a crafted pickle", written.getvalue()
    size = struct.unpack("<Q", data[:8])[0] if len(data) > 8 else 0
    if 0 < size < len(data) and data[8:9] == b"{":
        header = data[8 : 8 + size]
        _word(rng, header)
        return "with a crafted header", struct.pack("<Q", len(header)) + header + data[8 + size :]
    _word(rng, data)
    return "with a crafted value", bytes(data)


def _word(rng: random.Random, data: bytearray) -> tuple[int, int]:
    """Another value in the place of a number, in text; a number of a pickle elsewhere."""
    found = [match.span() for match in re.finditer(rb"(?<=[:,\[ ])\d[\d.e-]*", data)]
    if not found:
        return _number(rng, data) if data else (0, 0)
    start, end = rng.choice(found)
    data[start:end] = rng.choice(_WORDS)
    return start, 1
