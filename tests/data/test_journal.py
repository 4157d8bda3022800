"""The journal of ``prepare``: what was edited or damaged is refused by line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from videomae_fast.data.prepare import PrepareSettings, run
from videomae_fast.data.prepare.journal import KINDS, Journal
from videomae_fast.errors import UsageError

MADE = {
    "frames": 5, "width": 2, "height": 2, "bytes": 9, "rate": "25", "source_codec": "h264",
    "source_width": 2, "source_height": 2,
}  # fmt: skip
RIGHT = {"source": "/x.mp4", "state": [3, 4], "output": "x.mp4", **MADE}


@pytest.mark.parametrize(
    "edited",
    [
        {"output": "../x.mp4"},
        {"output": "/elsewhere/x.mp4"},
        {"output": "a/../../x.mp4"},
        {"output": ""},
        {"output": "."},
        {"output": "a//x.mp4"},
        {"output": "x\0.mp4"},
        {"output": "x.txt"},
        {"output": ["x.mp4"]},
        {"source": 5},
        {"state": [1]},
        {"state": [1, -1]},
        {"state": "ab"},
        {"bytes": "9"},
        {"frames": True},
        {"rate": 25},
        {"frames": None},
        {"more": 1},
    ],
)
def test_an_edited_journal_is_refused_by_line(tmp_path: Path, edited: dict[str, Any]) -> None:
    """A path that leads out of ``videos/`` was written to."""
    path, settings = tmp_path / "out/prepare.jsonl", PrepareSettings()
    Journal(path, settings).close()
    with path.open("a") as file:
        file.write(json.dumps(RIGHT) + "\n" + json.dumps({**RIGHT, **edited}) + "\n")
    with pytest.raises(UsageError, match=r"prepare\.jsonl:3: found .*take the line out"):
        Journal(path, settings)


@pytest.mark.parametrize(
    "line", ["5", "[]", '"a"', "null", "[" * 20_000, "9" * 5000, '{"source": "/y", "state": null}']
)
@pytest.mark.parametrize("number", [1, 2])
def test_a_journal_of_anything_is_refused_by_line(tmp_path: Path, line: str, number: int) -> None:
    path, settings = tmp_path / "prepare.jsonl", PrepareSettings()
    Journal(path, settings).close()
    header = path.read_text() if number == 2 else ""
    path.write_text(f"{header}{line}\n")
    with pytest.raises(UsageError, match=rf"prepare\.jsonl:{number}: found"):
        Journal(path, settings)


def test_two_sources_never_share_a_new_file(tmp_path: Path) -> None:
    path, settings = tmp_path / "prepare.jsonl", PrepareSettings()
    Journal(path, settings).close()
    kept = path.read_text()
    gone = {"source": "/x.mp4", "state": None, "kind": "missing", "reason": "no such file"}
    for between, refused in ([], True), ([gone], False):
        records = [RIGHT, *between, {**RIGHT, "source": "/y.mp4", "output": "X.mp4"}]
        path.write_text(kept + "".join(json.dumps(record) + "\n" for record in records))
        if refused:
            with pytest.raises(UsageError, match=r"'/x\.mp4' and '/y\.mp4' have the same new"):
                Journal(path, settings)
        else:
            Journal(path, settings).close()


def test_every_kind_of_failure_has_a_remedy() -> None:
    assert set(run.REMEDIES) == set(KINDS)
