"""Files that grow by lines: full disks, power cuts, files that are taken away."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.support.limits import largest_file
from videomae_fast.data.errors import ListError, OutputError
from videomae_fast.data.files import AppendFile, keep_steps_before, write_lines


def step_of(line: str) -> int:
    return int(json.loads(line)["step"])


def lines(*steps: int) -> str:
    return "".join(f'{{"step": {step}}}\n' for step in steps)


def test_what_does_not_fit_is_taken_back(tmp_path: Path) -> None:
    file = AppendFile(tmp_path / "file")
    file.write("one\n")
    for room in (4, 9):  # no byte more, and a part of the next line
        with (
            largest_file(room),
            pytest.raises(OutputError, match=r"file: can't be written: (No space|File too large)"),
        ):
            file.write("two and three\n")
        assert file.path.read_text() == "one\n"
    file.write("two\n")
    file.close()
    assert file.path.read_text() == "one\ntwo\n"


def test_a_full_disk_at_the_start_names_the_file(tmp_path: Path) -> None:
    with largest_file(0), pytest.raises(OutputError, match=r"config\.json: can't be written"):
        write_lines(tmp_path / "config.json", ["{}\n"])
    assert not list(tmp_path.iterdir())
    with pytest.raises(OutputError, match="none/file: can't be written: No such file"):
        AppendFile(tmp_path / "none" / "file")


@pytest.mark.parametrize("how", ["removed", "replaced", "folder"])
def test_a_file_that_is_taken_away_is_noticed(tmp_path: Path, how: str) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    file = AppendFile(folder / "file")
    file.check()
    if how == "folder":
        folder.rename(tmp_path / "moved")
    else:
        file.path.unlink()
        if how == "replaced":
            file.path.write_text("")
    with pytest.raises(OutputError, match="file: was removed, moved or replaced"):
        file.check()


@pytest.mark.parametrize(
    "damage",
    [b"\0" * 700 + b"\n", b"\xff\xfe\x80\n" * 3, b"[" * 100_000 + b"\n", b'{"step": "4"x}\n',
     b"\0\0" + lines(3).encode(), b"{}\n" + lines(5, 6).encode()],
)  # fmt: skip
def test_damage_behind_the_lines_that_stay_is_put_aside(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "file.jsonl"
    whole = lines(0, 1, 2, 3).encode() + damage + b"\0\0"
    path.write_bytes(whole)
    kept = keep_steps_before(path, 4, step_of, every_step=True)
    assert [step_of(line) for line in kept.lines] == [0, 1, 2, 3]
    assert path.read_text() == lines(0, 1, 2, 3)
    assert kept.aside == tmp_path / "file.jsonl.damaged"
    assert kept.aside.read_bytes() == whole
    assert keep_steps_before(path, 2, step_of) == (['{"step": 0}', '{"step": 1}'], None)


def test_a_full_disk_takes_no_line_of_a_damaged_file(tmp_path: Path) -> None:
    path = tmp_path / "file.jsonl"
    whole = lines(0, 1).encode() + b"\0\n"
    path.write_bytes(whole)
    for room in (0, 4):  # none for the copy, and some
        with largest_file(room), pytest.raises(OutputError, match="can't be written"):
            keep_steps_before(path, 2, step_of)
        assert path.read_bytes() == whole


def test_a_stop_between_copy_and_lines_loses_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file.jsonl"
    path.write_bytes(lines(0, 1).encode() + b"\0\n")
    with monkeypatch.context() as patched:
        patched.setattr("videomae_fast.data.files.write_lines", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            keep_steps_before(path, 2, step_of)
    assert len(keep_steps_before(path, 2, step_of).lines) == 2


def test_damage_among_the_lines_that_stay_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "file.jsonl"
    path.write_bytes(lines(0).encode() + b"\0\n" + lines(2).encode())
    with pytest.raises(ListError, match=r"file.jsonl:2: found '\\x00'.*move the file away"):
        keep_steps_before(path, 3, step_of)
    # Where each step has a line, the one of step 1 is missing and not one that is made again
    path.write_bytes(lines(0).encode() + b"\0\n")
    with pytest.raises(ListError, match=r"file.jsonl:2"):
        keep_steps_before(path, 2, step_of, every_step=True)
    assert os.listdir(tmp_path) == ["file.jsonl"]
    assert keep_steps_before(path, 2, step_of).lines == ['{"step": 0}']


def test_a_file_that_is_not_there_is_made(tmp_path: Path) -> None:
    assert keep_steps_before(tmp_path / "file", 5, step_of, every_step=True) == ([], None)
    assert (tmp_path / "file").read_text() == ""
