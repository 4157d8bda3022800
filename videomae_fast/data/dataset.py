"""Draws in, uint8 clips out: what one loader process does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from videomae_fast.data.beside import processes_here
from videomae_fast.data.cache import CachedVideos
from videomae_fast.data.cache.videos import cache_at
from videomae_fast.data.decoders import find_decoder
from videomae_fast.data.errors import DecodeError
from videomae_fast.data.failures import Failure
from videomae_fast.data.keyed_order import draw_order, told_mixing
from videomae_fast.data.lists import Entry
from videomae_fast.data.lists.sources import LoadedSource, load_sources
from videomae_fast.data.order import Draw, Order, item_words
from videomae_fast.data.reading import (
    PREFETCH_BYTES,
    STORE_TIMEOUT,
    ClipRequest,
    ReadResult,
    ReadSettings,
    read,
)
from videomae_fast.data.store.opening import StoredClip
from videomae_fast.data.views.clips import as_size
from videomae_fast.data.views.multi_scale import MULTI_SCALE
from videomae_fast.data.views.rule import WORDS_PER_SAMPLE, ViewRule
from videomae_fast.recipes import schema
from videomae_fast.recipes.source import Source


@dataclass(frozen=True)
class ClipSample:
    """One video's clips.

    Attributes:
        frames: [S, T, H, W, 3], uint8 or, of views that are normalised, fp32.
        mask_seeds: int64 [S], one per sample.
        label: of the list, -1 where it has none.
        name: for messages.
        failure: why the frames are all zero, or None.
    """

    frames: Tensor
    mask_seeds: Tensor
    label: int
    name: str
    failure: Failure | None

    @property
    def ok(self) -> bool:
        return self.failure is None


def clip_dataset(
    data: schema.Reading,
    sources: Sequence[Source],
    *,
    frames: int,
    image_size: int | tuple[int, int],
    samples: int,
    seed: int,
    rule: ViewRule = MULTI_SCALE,
    kind: Callable[..., ClipDataset] | None = None,
) -> ClipDataset:
    """The clips of lists, read as a configuration says.

    Args:
        data: how they are read.
        sources: the lists.
        frames: of a clip.
        image_size: of a clip in pixels, a side or (height, width).
        samples: clips of each video.
        seed: of all that is drawn.
        rule: which frames and views make the clips.
        kind: makes the data set in place of :class:`ClipDataset`.

    Raises:
        ListError: a list can't be read.
        BackendUnavailableError: the decoder is not installed.
    """
    cached = cache_at(data.cache, data.cache_gb)
    return (kind or ClipDataset)(
        sources,
        frames=frames,
        stride=data.stride,
        image_size=image_size,
        samples=samples,
        decoder=data.decoder,
        seed=seed,
        epoch_size=data.epoch_size,
        cache=cached,
        rule=rule,
        order=data.order,
        block=data.block,
        window=data.window,
        prefetch_bytes=round(data.prefetch_gb * 1e9 / processes_here()),
        store_timeout=data.store_timeout,
    )


class ClipDataset(Dataset[ClipSample]):
    """Videos of one or more lists as clips; an item is a :class:`Draw`, not a number.

    Everything random about an item comes from (seed, epoch, position), so it is the same
    whoever reads it. A clip is decoded once for all its samples; each sample has a crop and a
    mask seed of its own, and one crop serves all frames (repeated augmentation).

    Args:
        sources: the lists.
        frames: of a clip.
        stride: from one sampled frame to the next; a source's own wins.
        image_size: side, or (height, width), of the clips in pixels.
        samples: clips per video.
        decoder: "pyav", "decord" or "torchcodec".
        seed: of all that is drawn, at least 0.
        epoch_size: draws per epoch; None: as many as all sources have entries.
        cache: a folder of decoded videos that stands before the decoder.
        rule: which frames and views make the clips.
        order: of the draws, "computed" or "table".
        block: entries next to each other that are drawn soon after one another; 1 shuffles each
            by itself.
        window: blocks whose entries are mixed, where they are blocks.
        prefetch_bytes: of clips of object stores that a process holds ahead.
        store_timeout: seconds after which a store that can't be reached is given up.

    Raises:
        ValueError: impossible settings.
        ListError: a list that can't be read.
        BackendUnavailableError: the decoder can't be used here.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        *,
        frames: int = 16,
        stride: int = 4,
        image_size: int | tuple[int, int] = 224,
        samples: int = 4,
        decoder: str = "pyav",
        seed: int = 0,
        epoch_size: int | None = None,
        cache: CachedVideos | None = None,
        rule: ViewRule = MULTI_SCALE,
        order: str = "computed",
        block: int = 1,
        window: int = 64,
        prefetch_bytes: int = PREFETCH_BYTES,
        store_timeout: float = STORE_TIMEOUT,
    ) -> None:
        if min(frames, stride, samples) < 1:
            raise ValueError(
                f"frames ({frames}), stride ({stride}), samples ({samples}) must be at least 1"
            )
        self.sources: list[LoadedSource] = load_sources(sources)
        self.frames = frames
        self.stride = stride
        self.size = as_size(image_size)
        self.samples = samples
        self.seed = seed
        self.cache = cache
        self.rule = rule
        self.prefetch_bytes, self.store_timeout = prefetch_bytes, store_timeout
        self.decoder = find_decoder(decoder).name
        lengths = [len(source) for source in self.sources]
        size = sum(lengths) if epoch_size is None else epoch_size
        shares = [source.share for source in self.sources]
        self.order: Order = draw_order(
            order, lengths, shares, size, seed, block=block, window=window
        )

    def __len__(self) -> int:
        """Draws (videos) per epoch."""
        return self.order.epoch_size

    def describe(self, videos_per_step: int) -> str:
        """One line per source: entries, share of the draws, stride; and how blocks are mixed."""
        lines = [
            f"{source.source.label}: {len(source):,} entries, {source.share:.1%} of "
            f"{len(self):,} draws per epoch, stride {source.source.stride or self.stride}"
            for source in self.sources
        ]
        mixed = told_mixing(self.order, videos_per_step)
        return "\n".join([*lines, *mixed])

    def entry(self, draw: Draw) -> Entry:
        """The line of the list, or the row of the store, that a draw stands for."""
        return self.sources[draw.source].entries[draw.entry]

    def file(self, draw: Draw) -> Path | StoredClip:
        """The file or frame folder that a draw reads, or the row of a store."""
        return self.sources[draw.source].file(draw.entry)

    def request(self, draw: Draw) -> ClipRequest:
        """A draw with all that is needed to read it."""
        loaded = self.sources[draw.source]
        entry, source = loaded.brief(draw.entry), loaded.source
        count = 1 + self.samples * WORDS_PER_SAMPLE
        return ClipRequest(
            draw=draw,
            file=loaded.file(draw.entry),
            list_path=source.path,
            line=entry.line,
            label=entry.label,
            start=entry.start,
            total=entry.total,
            name_pattern=source.name_pattern,
            stride=source.stride or self.stride,
            words=tuple(item_words(self.seed, draw.epoch, draw.position, count)),
        )

    @property
    def read_settings(self) -> ReadSettings:
        """How requests are read: to clips, on the CPU."""
        return ReadSettings(
            self.frames,
            self.size,
            self.samples,
            self.decoder,
            cache=self.cache,
            rule=self.rule,
            prefetch_bytes=self.prefetch_bytes,
            store_timeout=self.store_timeout,
        )

    def __getitem__(self, draw: Draw) -> ClipSample:
        """Reads a draw; a bad file gives zeros and a :class:`Failure` of the same shapes."""
        request = self.request(draw)
        shape = (self.samples, self.frames, *self.size, 3 * self.rule.dtype.itemsize)
        try:
            result = read(request, self.read_settings)
            clips, name, failure = result.data, clip_name(request, result), None
        except DecodeError as error:
            clips, name = np.zeros(shape, dtype=np.uint8), request.name
            failure = failure_of(request, error)
        seeds = torch.tensor(request.mask_seeds, dtype=torch.int64)
        frames = torch.from_numpy(clips.view(self.rule.dtype))
        return ClipSample(frames, seeds, request.label, name, failure)


def clip_name(request: ClipRequest, result: ReadResult) -> str:
    """For messages: file, list line and frames."""
    return f"{request.name} frames {result.ids[0]}..{result.ids[-1]}"


def failure_of(request: ClipRequest, error: DecodeError) -> Failure:
    """The report's line for a draw that gave no clip."""
    draw, file = request.draw, request.file
    stored = file if isinstance(file, StoredClip) else None
    return Failure(
        path=str(file) if stored is None else stored.source,
        list_path=str(request.list_path) if stored is None else stored.path,
        line=request.line if stored is None else 0,
        row=None if stored is None else stored.number,
        reason=error.reason,
        step=draw.step,
        epoch=draw.epoch,
        position=draw.position,
        trace=error.trace,
    )
