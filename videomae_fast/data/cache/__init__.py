"""Decoded videos in a folder, on a fast disk or in memory, so that they are decoded only once.

:class:`CachedVideos` stands between a decoder and its callers; :func:`fill_cache` decodes a list
beforehand. A folder on tmpfs (``/dev/shm``) is the cache in memory.
"""

from __future__ import annotations

from videomae_fast.data.cache.fill import CacheFill, fill_cache
from videomae_fast.data.cache.videos import CacheCounts, CachedVideos

__all__ = ["CacheCounts", "CacheFill", "CachedVideos", "fill_cache"]
