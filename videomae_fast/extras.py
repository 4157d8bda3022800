"""Packages that some part of this one uses when they are there, and how they are installed."""

from __future__ import annotations

import shlex
from typing import Final

EXTRAS: Final = {
    "decord": "decord>=0.6",
    "torchcodec": "torchcodec>=0.11,<0.14",
    "dali": "nvidia-dali-cuda130>=2.0",
    "transformers": "transformers>=5",
    "tensorboard": "tensorboard>=2.16",
    "lance": "pylance>=14",
    "obstore": "obstore>=0.9",
    "ray": "ray>=2.40",
}
"""By their names in pyproject.toml, the requirements that stand there."""


def install(extra: str) -> str:
    """The command that installs an extra; pip finds what it names however this package got here.

    Pip takes the newest, so only limits from above need to be said.
    """
    requirement = EXTRAS[extra]
    if "<" not in requirement:
        requirement = requirement.partition(">=")[0]
    return f"pip install {shlex.quote(requirement)}"
