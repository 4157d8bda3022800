"""A run goes on with the entries that it began with, wherever they lie."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.support.runs import altered, quiet
from videomae_fast.data import Source
from videomae_fast.data.lists.digests import frames_digest, paths_digest
from videomae_fast.data.lists.reading import load_list
from videomae_fast.recipes import PretrainConfig
from videomae_fast.training import pretrain
from videomae_fast.training.errors import CheckpointError

Make = Callable[..., PretrainConfig]


def digests(folder: Path, lines: Sequence[str]) -> tuple[str, str]:
    path = folder / "list.csv"
    path.write_text("\n".join(lines))
    entries = load_list(path)
    return paths_digest(entries), frames_digest(entries)


def test_checksums_are_of_what_is_named(tmp_path: Path) -> None:
    whole = [f"/data/k400/train/{n % 3}/{n:04}.mp4 0 -1" for n in range(70_000)]
    named, numbers = digests(tmp_path, whole)
    elsewhere = [line.replace("/data/k400/train/", "videos/") for line in whole]
    commented = ["# of another day", *(line.replace(" ", "  ") for line in elsewhere), ""]
    for same in (elsewhere, commented):
        assert digests(tmp_path, same) == (named, numbers)
    others = {
        "order": [*whole[:-2], whole[-1], whole[-2]],
        "first": ["/data/k400/train/0/other.mp4 0 -1", *whole[1:]],
        "last": [*whole[:-1], whole[-1].replace(".mp4", ".avi")],
        "boundary": [whole[0].replace("0000.mp4", "0000.mp4x"), *whole[1:]],
        "folder": [line.replace("/train/1/", "/train/5/") for line in whole],
    }
    found = {named}
    for name, lines in others.items():
        paths, frames = digests(tmp_path, lines)
        assert paths not in found, name
        assert frames == numbers
        found.add(paths)
    frames = [line.replace(" 0 -1", " 1 30") for line in whole]
    assert digests(tmp_path, frames)[0] == named
    assert digests(tmp_path, frames)[1] != numbers


@pytest.mark.parametrize(
    "lines",
    [["a.mp4 0 -1"], ["/a.mp4 0 -1", "/b/c.mp4 0 -1"], ["a/b 0 3", "c/b 0 3"], ["a/b 0 3"] * 3],
)
def test_paths_without_a_common_folder(tmp_path: Path, lines: list[str]) -> None:
    paths = [line.split()[0] for line in lines]
    cut = paths[0].rfind("/") + 1 if len(set(paths)) == 1 else 1 if paths[0][0] == "/" else 0
    expected = hashlib.sha256()
    expected.update(np.array([len(path) - cut for path in paths], "<i4").tobytes())
    expected.update("".join(path[cut:] for path in paths).encode())
    assert digests(tmp_path, lines)[0] == expected.hexdigest()


def test_other_entries_of_the_same_number_are_another_run(
    tiny: Make, tmp_path: Path, tiny_list: Path
) -> None:
    files = [tmp_path / name for name in ("first.csv", "second.csv")]
    lines = tiny_list.read_text().splitlines()
    for file, part in zip(files, (lines[:4], lines[4:]), strict=True):
        file.write_text("\n".join(part))

    def go_on(first: list[str], second: list[str], steps: int) -> int:
        files[0].write_text("\n".join(first))
        files[1].write_text("\n".join(second))
        config = altered(tiny(), data=tuple(map(Source, files)), steps=steps, warmup_epochs=0)
        return pretrain(config, output=tmp_path / "run", log=quiet).steps

    assert go_on(lines[:4], lines[4:], 1) == 1
    (tmp_path / "moved").symlink_to(tiny_list.parent)
    moved = [line.replace(str(tiny_list.parent), str(tmp_path / "moved")) for line in lines]
    assert go_on(moved[:4], moved[4:], 2) == 2
    turned = r"of another run: paths_sha256 of list 2 was '\w{64}' and is '\w{64}'\. Give"
    with pytest.raises(CheckpointError, match=turned):
        go_on(lines[:4], lines[:3:-1], 3)
    numbered = [line.replace(" 0 -1", " 1 8") for line in lines]
    with pytest.raises(CheckpointError, match="run: frames_sha256 of list 1 was"):
        go_on(numbered[:4], lines[4:], 3)
    # What an earlier version did not say is not compared
    folder = tmp_path / "run/checkpoints/step-00000002"
    state = json.loads((folder / "state.json").read_text())
    state["data"] = {k: v for k, v in state["data"].items() if not k.endswith("_sha256")}
    text = json.dumps(state)
    (folder / "state.json").write_text(text)
    digest = hashlib.sha256(text.encode()).hexdigest()
    (folder / "state.json.sha256").write_text(f"{digest}  state.json\n")
    assert go_on(lines[:4], lines[:3:-1], 3) == 3
