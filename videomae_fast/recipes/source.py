"""Data lists as values: where each lies, and how it is read."""

from __future__ import annotations

import re
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Any, Final, Literal

from videomae_fast.recipes.fields import SettingError, option, settings_of

ListFormat = Literal["pretrain", "labels", "folder-labels"]
"""What the lines of a list are; see :mod:`videomae_fast.data.lists`."""


@dataclass(frozen=True)
class Source:
    """A data list or a store, or the part of one, and how to read it. Each field says what it
    means.

    Raises:
        ValueError: a value that can't be; the message begins with the list's path.
    """

    path: Path = option(MISSING, "the list, or the folder or URL (s3://...) of a store")
    root: Path | None = option(
        None, "folder that relative paths of the list start from (none: the working folder)"
    )
    weight: float | None = option(
        None,
        "share of the draws relative to the other lists; none for all of them means as many as "
        "each has entries, which is a plain concatenation",
        above=0,
    )
    stride: int | None = option(
        None, "from one sampled frame to the next (none: data.stride)", unit="frames", least=1
    )
    name_pattern: str = option(
        "img_{:05}.jpg",
        "file name of an image in a frame folder, formatted with its number",
        flat="pattern",
    )
    contains: str | None = option(
        None, "keep only entries whose path, joined to the root, contains this text"
    )
    excludes: tuple[str, ...] = option((), "leave out entries whose path contains one of these")
    only: Literal["videos", "folders"] | None = option(None, "keep only videos, or frame folders")
    format: ListFormat = option(
        "pretrain",
        "of its lines. pretrain: 'path 0 -1' and 'folder start total'; labels: 'path label'; "
        "folder-labels: 'folder total label'",
    )
    first_frame: int = option(
        1,
        "number of the first image of a frame folder, which folder-labels does not say",
        least=0,
        flat="first",
    )
    version: int | None = option(
        None,
        "of a store (none: the newest when the run begins; one that goes on reads its own)",
        least=1,
    )
    name: str | None = option(None, "for logs (none: the list's name, and `contains`)")

    def __post_init__(self) -> None:
        for name in ("path", "root"):
            as_path(self, name)
        check_source(self)

    @property
    def label(self) -> str:
        """The name shown in logs."""
        if self.name is not None:
            return self.name
        return self.path.name + (f"[{self.contains}]" if self.contains else "")


_URL: Final = re.compile(r"(s3|s3a|gs|az|abfs|abfss|http|https):/+(.+)", re.DOTALL)


def remote_url(path: str | Path) -> str | None:
    """The URL that a path stands for, which has lost one of its slashes; None for a local path."""
    found = _URL.fullmatch(str(path))
    return None if found is None else f"{found[1]}://{found[2]}"


def as_path(source: Any, name: str) -> None:
    """Makes a field of a frozen source a path, where it is a text."""
    if getattr(source, name) is not None:
        object.__setattr__(source, name, Path(getattr(source, name)))


def check_source(source: Any, **words: str) -> None:
    """Checks the fields of a source, and that its ``name_pattern`` has a place for a number.

    Args:
        source: with ``path`` and ``name_pattern``.
        words: what else the pattern may name, with an example.

    Raises:
        ValueError: a value that can't be; the message begins with the list's path.
    """
    path, pattern = source.path, source.name_pattern
    for setting in settings_of(type(source)):
        try:
            setting.check(getattr(source, setting.field))
        except SettingError as error:
            raise SettingError(setting.name, f"{path}: {error}") from None
    try:
        names = {pattern.format(number, **words) for number in (1, 2)}
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: name_pattern {pattern!r} can't be formatted with a frame "
            f"number ({error}); write it like 'img_{{:05}}.jpg'"
        ) from error
    if len(names) == 1:
        raise ValueError(
            f"{path}: name_pattern {pattern!r} has no place for the frame "
            "number; write it like 'img_{:05}.jpg'"
        )


BY_OPTION: Final = {
    setting.flat: setting
    for setting in settings_of(Source)
    if setting.field not in ("path", "excludes")
}
"""The options of ``--data`` by name: the path stands before them, and several texts of one option
would need quoting."""
