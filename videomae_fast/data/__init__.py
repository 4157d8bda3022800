"""Files in, uint8 clips out: lists, order, decoding, crops, failures.

The way through: :class:`Source` names a list, :class:`ClipDataset` reads clips of it,
:func:`clip_loader` iterates over batches, :class:`FailureReport` keeps what could not be read.
"""

from __future__ import annotations

from videomae_fast.data.cache import CacheCounts, CachedVideos
from videomae_fast.data.dataset import ClipDataset, ClipSample
from videomae_fast.data.decoders import DECODERS, FolderReader, VideoReader, open_video
from videomae_fast.data.errors import DecodeError, FailureShareError, ListError, WorkerDiedError
from videomae_fast.data.failures import Failure, FailureReport, read_report
from videomae_fast.data.lists import ClipList, Entry, load_list
from videomae_fast.data.lists.sources import unlabeled_hybrid
from videomae_fast.data.loader.pipeline import ClipBatch, clip_loader, steps_per_epoch
from videomae_fast.data.loader.stats import PipelineStats
from videomae_fast.data.order import Draw, EpochOrder
from videomae_fast.data.views.clips import read_clip
from videomae_fast.data.views.crops import centre_box, crop_resize, crop_views, multi_scale_box
from videomae_fast.data.views.sampling import frame_ids, possible_starts
from videomae_fast.former_names import former_names
from videomae_fast.recipes.source import Source

__all__ = [
    "DECODERS",
    "CacheCounts",
    "CachedVideos",
    "ClipBatch",
    "ClipDataset",
    "ClipList",
    "ClipSample",
    "DecodeError",
    "Draw",
    "Entry",
    "EpochOrder",
    "Failure",
    "FailureReport",
    "FailureShareError",
    "FolderReader",
    "ListError",
    "PipelineStats",
    "Source",
    "VideoReader",
    "WorkerDiedError",
    "centre_box",
    "clip_loader",
    "crop_resize",
    "crop_views",
    "frame_ids",
    "load_list",
    "multi_scale_box",
    "open_video",
    "possible_starts",
    "read_clip",
    "read_report",
    "steps_per_epoch",
    "unlabeled_hybrid",
]

__getattr__ = former_names(__name__, {"Feeding": "PipelineStats"})
