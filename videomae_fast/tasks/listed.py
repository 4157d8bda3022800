"""What a run read of its lists, as a checkpoint keeps it: a run that goes on must read the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from videomae_fast.data.lists.digests import frames_digest, paths_digest
from videomae_fast.data.lists.reading import ClipList
from videomae_fast.data.lists.sources import LoadedSource
from videomae_fast.data.store.entries import StoreEntries
from videomae_fast.training.parallel.world import World

Digests = dict[str, list[str | None]]


def lists_digests(sources: Sequence[LoadedSource], world: World, prefix: str = "") -> Digests:
    """Checksums of what each list names, and in which order; the same wherever lists and videos
    lie. Of a store, of its files' names; what is of the other kind is None. Every process calls it,
    one computes.

    Args:
        sources: the lists.
        world: the processes of the run.
        prefix: of the names.

    Returns:
        ``paths_sha256`` and ``frames_sha256``, of each list, and ``stores_sha256``.
    """
    kinds: dict[str, Callable[[ClipList], str]] = {
        f"{prefix}paths_sha256": paths_digest,
        f"{prefix}frames_sha256": frames_digest,
    }
    found: Digests = {}
    if world.is_main:
        for name, digest in kinds.items():
            entries = [source.entries for source in sources]
            found[name] = [digest(one) if isinstance(one, ClipList) else None for one in entries]
        found[f"{prefix}stores_sha256"] = [
            one.entries.store.identity() if isinstance(one.entries, StoreEntries) else None
            for one in sources
        ]
    told: Digests = world.from_main(found)
    return told
