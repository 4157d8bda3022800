"""What is said of packages that are not there."""

from __future__ import annotations

import tomllib
from pathlib import Path

from videomae_fast.extras import EXTRAS, install

ROOT = Path(__file__).parents[1]


def test_what_installs_an_extra_is_what_the_package_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    of_developers = ("dev", "docs", "checkouts")
    wanted = {
        name: needs
        for name, needs in project["optional-dependencies"].items()
        if name not in of_developers
    }
    assert {name: [needs] for name, needs in EXTRAS.items()} == wanted
    for source in (ROOT / "videomae_fast").rglob("*.py"):
        assert "videomae-fast[" not in source.read_text(), source  # no index has it
    assert install("decord") == "pip install decord"
    assert install("torchcodec") == "pip install 'torchcodec>=0.11,<0.14'"
