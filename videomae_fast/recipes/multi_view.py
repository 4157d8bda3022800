"""What a multi-view test is made of, as a stage of a plan has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from videomae_fast.recipes.fields import Config, Section, option
from videomae_fast.recipes.source import Source


@dataclass(frozen=True)
class TestedData(Section):
    """Which videos are scored, and how they are read."""

    __test__ = False  # no test of pytest's
    called: ClassVar[str] = "data"

    lists: tuple[Source, ...] = option((), "labelled lists", flat="data")
    classes: str | None = option(
        None,
        "names of the classes by label: a file with one a line, or kinetics-400, -600, -700, -710 "
        "(none: the weights')",
    )
    sampling: Literal["dense", "sparse"] | None = option(
        None, "frames of a clip, as for fine-tuning (none: as the weights were)"
    )
    stride: int | None = option(
        None, "from one frame to the next (none: the fine-tuning's)", unit="frames", least=1
    )
    decoder: str = option("pyav", "video decoder: pyav, decord or torchcodec")
    workers: int = option(4, "loader processes of each process", least=0, resumable=True)
    decode_timeout: float = option(120.0, "for one video", unit="seconds", above=0, resumable=True)


@dataclass(frozen=True)
class Views(Section):
    """The views of each video, whose probabilities are averaged."""

    segments: int = option(5, "of time", least=1)
    crops: int = option(3, "of space", least=1)
    frames: int | None = option(None, "of a clip (none: the fine-tuning's)", least=1)
    image_size: int | None = option(
        None, "side of a clip (none: the fine-tuning's)", unit="pixels", least=1
    )
    batch: int = option(30, "that the model takes at a time", unit="clips", least=1, resumable=True)


@dataclass(frozen=True)
class TestRun(Section):
    """Where and how it is computed."""

    __test__ = False
    called: ClassVar[str] = "run"

    device: Literal["auto", "cpu", "cuda"] = option(
        "auto", "auto (a GPU where there is one), cpu or cuda", resumable=True
    )
    precision: Literal["auto", "fp32", "bf16"] = option(
        "auto", "auto (bf16 autocast on a GPU, fp32 on the CPU), fp32 or bf16"
    )


@dataclass(frozen=True)
class TestConfig(Config):
    """A multi-view test."""

    __test__ = False
    task: ClassVar[str] = "test"

    data: TestedData = TestedData()
    views: Views = Views()
    run: TestRun = TestRun()
