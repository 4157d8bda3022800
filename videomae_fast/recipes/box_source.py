"""Lists of key frames with boxes as values: where each lies, and what belongs to it."""

from __future__ import annotations

from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Final, Literal

from videomae_fast.recipes.fields import option, settings_of
from videomae_fast.recipes.source import as_path, check_source

BoxFormat = Literal["ava", "json"]
"""AVA's csv, or JSON as of the official AVA code or like COCO's; see ``data/boxes``."""


@dataclass(frozen=True)
class BoxSource:
    """A list of annotated key frames, and how its videos are read. Each field says what it means.

    Raises:
        ValueError: a value that can't be; the message begins with the list's path.
    """

    path: Path = option(MISSING, "the list: annotated boxes as AVA's csv, or as JSON")
    root: Path | None = option(
        None,
        "folder with the videos, or with a folder of images for each (none: the working folder)",
    )
    weight: float | None = option(
        None,
        "share of the draws relative to the other lists; none for all of them means as many as "
        "each has key frames, which is a plain concatenation",
        above=0,
    )
    format: BoxFormat | None = option(
        None,
        "of the list. ava: lines video,timestamp,x1,y1,x2,y2,class; json: images and annotations "
        "(none: by its ending)",
    )
    proposals: Path | None = option(
        None,
        "boxes of persons that a detector found: csv lines video,timestamp,x1,y1,x2,y2,,score, "
        "mmaction2's pickle (.pkl), or for a JSON list JSON with image_id, bbox, score, or that as "
        "a pickle; of a pickle nothing is executed",
    )
    exclusions: Path | None = option(None, "key frames that don't count: csv lines video,timestamp")
    begin: float = option(
        0.0,
        "time of a video's first frame; 900 where AVA's movies are cut to their annotated part",
        unit="seconds",
        least=0,
    )
    trimmed: bool = option(
        False,
        "videos are parts named VIDEO_BEGIN_END, in seconds, as those of Kinetics: begin is theirs",
    )
    per_second: bool = option(
        False,
        "each video is a folder of files (or folders of images) of one second each, named by their "
        "second, as VIDEO/902.mp4: the official AVA code's clips",
    )
    fps: float | None = option(
        None,
        "frames per second of image folders, and of videos that don't say theirs right (none: 30 "
        "for folders, and what a video says)",
        above=0,
    )
    name_pattern: str = option(
        "img_{:05}.jpg",
        "file name of an image in a frame folder, formatted with its number; {video} stands for "
        "the video's name",
        flat="pattern",
    )
    first_frame: int = option(
        1, "number of the first image of a frame folder", least=0, flat="first"
    )
    name: str | None = option(None, "for logs (none: the list's name)")

    def __post_init__(self) -> None:
        for name in ("path", "root", "proposals", "exclusions"):
            as_path(self, name)
        check_source(self, video="a")
        for name in ("begin", "trimmed", "fps"):
            if self.per_second and getattr(self, name):
                raise ValueError(
                    f"{self.path}: per_second says when each file is, and {name} another time: "
                    "give one of them"
                )

    @property
    def label(self) -> str:
        """The name shown in logs."""
        return self.path.name if self.name is None else self.name

    @property
    def is_json(self) -> bool:
        """Whether the list is JSON, not csv."""
        return (self.format or ("json" if self.path.suffix.lower() == ".json" else "ava")) == "json"


BOXES_BY_OPTION: Final = {
    setting.flat: setting for setting in settings_of(BoxSource) if setting.field != "path"
}
"""The options of ``--data`` by name, where lists are of boxes."""
