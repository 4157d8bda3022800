"""The classes of Kinetics-400, 600, 700 and 710, in the order of the released heads.

The order is each file's own: 400 follows Kinetics-400's names, 600, 700 and 710 are shuffled. Who
sorts names there gets the accuracy of chance. Where names and index lists of the official files
contradict each other, the weights follow the index lists, and so does this: Kinetics-400's "opening
bottle" has the row "opening wine bottle", and "throwing ball" stays a class of its own in all four.

Source: misc/ of the official V2 repository (MIT).
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any, Final

from videomae_fast.errors import UsageError

SETS: Final = (400, 600, 700, 710)


@cache
def _data() -> dict[str, Any]:
    text = files("videomae_fast.data.labels").joinpath("kinetics.json").read_text("utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def kinetics_names(classes: int) -> list[str]:
    """Names of the classes of Kinetics-`classes`, by label.

    Raises:
        UsageError: there is no such set.
    """
    if classes not in SETS:
        raise UsageError(f"there is no Kinetics-{classes}: {', '.join(map(str, SETS))}")
    return list(_data()["names"][str(classes)])


def kinetics_rows(classes: int) -> list[int]:
    """Which rows of a Kinetics-710 head are those of Kinetics-400, 600 or 700, by label.

    Raises:
        UsageError: there is no such set.
    """
    if classes == 710:
        return list(range(710))
    if classes not in SETS:
        raise UsageError(f"there is no Kinetics-{classes}: {', '.join(map(str, SETS))}")
    return list(_data()["index_710_to"][str(classes)])


def other_names() -> dict[str, str]:
    """Names in the raw annotations that mean a class of the lists: raw name to the list's."""
    return dict(_data()["merged_names"])
