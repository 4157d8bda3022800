"""What the tests of both kinds of stores share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.stores import LABELS


@pytest.fixture(scope="module")
def labelled(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The list of six clips with labels, relative to their folder."""
    path = tmp_path_factory.mktemp("lists") / "train.csv"
    path.write_text("".join(f"clip{n}.mp4 {label}\n" for n, label in enumerate(LABELS)))
    return path
