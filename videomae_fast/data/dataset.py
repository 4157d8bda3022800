"""Draws in, uint8 clips out: what one loader process does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from videomae_fast.data.clips import as_size
from videomae_fast.data.crops import OFFSETS, SCALE_PAIRS, crop_views, multi_scale_box
from videomae_fast.data.decoders import DECODERS, FolderReader, VideoReader, find_decoder
from videomae_fast.data.errors import DecodeError
from videomae_fast.data.failures import Failure
from videomae_fast.data.lists import Entry
from videomae_fast.data.order import Draw, EpochOrder, below, item_words
from videomae_fast.data.sampling import frame_ids, possible_starts
from videomae_fast.data.sources import LoadedSource, Source, load_sources

# Random words of a draw: one for the start, then this many for each sample (scale pair,
# place, mask seed, and one kept free for a flip).
_WORDS_PER_SAMPLE = 4


@dataclass(frozen=True)
class ClipSample:
    """One video's clips.

    frames: uint8 [S, T, H, W, 3]; mask_seeds: int64 [S], one per sample; label: of the list, -1
    where it has none; name: for messages; failure: why the frames are all zero, or None.
    """

    frames: Tensor
    mask_seeds: Tensor
    label: int
    name: str
    failure: Failure | None

    @property
    def ok(self) -> bool:
        return self.failure is None


class ClipDataset(Dataset[ClipSample]):
    """Videos of one or more lists as clips; an item is a :class:`Draw`, not a number.

    Everything random about an item comes from (seed, epoch, position), so it is the same
    whoever reads it. A clip is decoded once for all its samples; each sample has a crop and a
    mask seed of its own, and one crop serves all frames (repeated augmentation).

    sources: see :class:`Source`; frames, stride: of a clip (a source's own stride wins);
    image_size: side or (height, width) of the clips in pixels; samples: clips per video;
    decoder: see :func:`~videomae_fast.data.decoders.find_decoder`; seed: at least 0;
    epoch_size: draws per epoch, None takes the number of entries of all sources.

    Raises ``ValueError`` for impossible settings, and what
    :func:`~videomae_fast.data.sources.load_sources` and ``find_decoder`` raise.
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
        self.decoder = find_decoder(decoder).name
        lengths = [len(source) for source in self.sources]
        self.order = EpochOrder(
            lengths,
            [source.share for source in self.sources],
            sum(lengths) if epoch_size is None else epoch_size,
            seed,
        )

    def __len__(self) -> int:
        """Draws (videos) per epoch."""
        return self.order.epoch_size

    @property
    def source_names(self) -> list[str]:
        return [source.source.label for source in self.sources]

    def describe(self) -> str:
        """One line per source: entries, share of the draws, stride."""
        return "\n".join(
            f"{source.source.label}: {len(source):,} entries, {source.share:.1%} of "
            f"{len(self):,} draws per epoch, stride {source.source.stride or self.stride}"
            for source in self.sources
        )

    def entry(self, draw: Draw) -> Entry:
        """The line of the list that a draw stands for."""
        return self.sources[draw.source].entries[draw.entry]

    def file(self, draw: Draw) -> Path:
        """The file or frame folder that a draw reads."""
        return self.sources[draw.source].file(self.entry(draw))

    def __getitem__(self, draw: Draw) -> ClipSample:
        """Reads a draw; a bad file gives zeros and a :class:`Failure` of the same shapes."""
        entry, file = self.entry(draw), self.file(draw)
        words = item_words(
            self.seed, draw.epoch, draw.position, 1 + self.samples * _WORDS_PER_SAMPLE
        )
        list_path = self.sources[draw.source].source.path
        name = f"{file} ({list_path}:{entry.line})"
        failure = None
        try:
            clips, first, last = self._clips(draw, entry, file, words)
            name += f" frames {first}..{last}"
        except DecodeError as error:
            clips = np.zeros((self.samples, self.frames, *self.size, 3), dtype=np.uint8)
            failure = Failure(
                path=str(file),
                list_path=str(list_path),
                line=entry.line,
                reason=error.reason,
                step=draw.step,
                epoch=draw.epoch,
                position=draw.position,
            )
        # 63 bits: seeds are int64 and not negative.
        seeds = [words[1 + i * _WORDS_PER_SAMPLE + 2] >> 1 for i in range(self.samples)]
        return ClipSample(
            torch.from_numpy(clips),
            torch.tensor(seeds, dtype=torch.int64),
            entry.label,
            name,
            failure,
        )

    def _clips(
        self, draw: Draw, entry: Entry, file: Path, words: list[int]
    ) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.uint8]], int, int]:
        """Clips uint8 [S, T, H, W, 3] and the first and last frame number."""
        source = self.sources[draw.source].source
        stride = source.stride or self.stride
        with self._open(source, entry, file) as video:
            duration = video.frame_count
            start = below(words[0], possible_starts(duration, self.frames, stride))
            ids = frame_ids(duration, start, self.frames, stride).tolist()
            decoded = video.read(ids)
        height, width = decoded.shape[1:3]
        boxes = []
        for sample in range(self.samples):
            pair, offset = words[1 + sample * _WORDS_PER_SAMPLE :][:2]
            pair, offset = below(pair, len(SCALE_PAIRS)), below(offset, len(OFFSETS))
            boxes.append(multi_scale_box(width, height, self.size, pair, offset))
        clips = crop_views(decoded, boxes, self.size)
        return clips, ids[0], ids[-1]

    def _open(self, source: Source, entry: Entry, file: Path) -> VideoReader:
        if entry.is_video:
            return DECODERS[self.decoder].open(file)
        return FolderReader(file, entry.start, entry.total, source.name_pattern)
