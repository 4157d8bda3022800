"""Lance data sets in an object store: what their rows say is kept on this machine as an index, and
a clip is a range of a data file.

Lance finds the version and reads the columns, once for each machine. Clips are fetched as those of
tar stores are, so that what a network can do is met in one place; Lance would read their places
again for each.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from videomae_fast.data.errors import OutputError, sentence
from videomae_fast.data.store.base import Row, StoreError
from videomae_fast.data.store.index import FILES, Index, write_index
from videomae_fast.data.store.indexed import IndexedStore
from videomae_fast.data.store.lance import (
    CLIP,
    COLUMNS,
    STORAGE,
    identity_of,
    named_by,
    open_data_set,
    row_of,
)
from videomae_fast.data.store.remote import RemoteRanges, index_folder, lance_options

_ABOUT: Final = "about.json"
_FRAGMENT: Final = 32  # bits of a row's address behind its fragment's number


class RemoteLanceStore(IndexedStore):
    """Clips in the data files of a Lance data set.

    Args:
        url: of the data set.
        version: Lance's number.
        kept: folder of the index.
        ranges: reads the data files.

    Raises:
        StoreError: the index can't be read.
    """

    def __init__(self, url: str, version: int, kept: Path, ranges: RemoteRanges) -> None:
        try:
            about = json.loads((kept / _ABOUT).read_bytes())
            files, rows = list(about["files"]), int(about["rows"])
            self._digest, self._identity = str(about["digest"]), str(about["identity"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreError(
                f"{kept}: what is kept of {url} can't be read ({sentence(error)}): remove this "
                "folder, and it is fetched again"
            ) from error
        super().__init__(url, version, [Index(_files(kept), rows)], [files], ranges)

    def digest(self) -> str:
        return self._digest

    def identity(self) -> str:
        return self._identity


def is_lance_url(url: str) -> bool:
    """Whether a URL is said to be of a Lance data set."""
    return url.rstrip("/").endswith(".lance")


def open_remote_lance_store(url: str, version: int | None = None) -> RemoteLanceStore:
    """Opens a Lance data set in an object store; what its rows say is fetched once to this machine.

    Args:
        url: of the data set.
        version: Lance's number; None: the newest.

    Raises:
        StoreError: there is none, it can't be read, or is none of this library's.
        StoreUnreachableError: it can't be reached.
        OutputError: the index can't be kept.
        BackendUnavailableError: Lance or obstore is not installed.
    """
    url = url.rstrip("/")
    ranges = RemoteRanges(url)
    if not ranges.has("_versions"):  # asked here, where it is known what an answer means
        raise StoreError(
            f"{url}: no store: it has no _versions (copy a Lance store's folder there, _versions "
            "last)"
        )
    data, count = open_data_set(url, version, storage_options=lance_options(url))
    if not count:
        raise StoreError(f"{url}: the store holds nothing yet")
    number = int(data.version)
    return RemoteLanceStore(url, number, _kept(url, data, count), ranges)


def _files(folder: Path) -> Mapping[str, Path]:
    return {what: folder / f"{what}.npy" for what in FILES}


def _kept(url: str, data: Any, count: int) -> Path:
    """The folder with the index of a version; fetched where it is not there yet."""
    files, identity = _data_files(url, data), identity_of(data, count)
    named = hashlib.sha256(f"{url}\0{identity}".encode())
    path = index_folder() / f"{named.hexdigest()[:40]}.lance"
    if (path / _ABOUT).exists():
        return path
    partial = path.with_suffix(f".{os.getpid()}.partial")
    try:
        partial.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        write_index(_files(partial), _rows(url, data, list(files), digest))
        about = {
            "url": url,
            "identity": identity,
            "digest": digest.hexdigest(),
            "rows": count,
            "files": list(files.values()),
        }
        (partial / _ABOUT).write_text(json.dumps(about, indent=1), encoding="utf-8")
        _move(partial, path)
    except StoreError:
        raise
    except ValueError as error:  # a text that is too long
        raise StoreError(f"{url}: {error}") from error
    except OSError as error:
        raise OutputError(f"{path}: can't be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return path


def _move(partial: Path, path: Path) -> None:
    try:
        os.rename(partial, path)
    except OSError:
        if not (path / _ABOUT).exists():  # else another process was faster
            raise


def _data_files(url: str, data: Any) -> dict[int, str]:
    """The files with the clips, by the numbers of their fragments: of the format in which the place
    that Lance tells of a blob is the one in its file.

    Raises:
        StoreError: they are of another one.
    """
    (clip,) = (one.id() for one in data.lance_schema.fields() if one.name() == CLIP)
    found = {}
    for fragment in data.get_fragments():
        (file,) = (one for one in fragment.metadata.files if clip in one.fields)
        form = f"{file.file_major_version}.{file.file_minor_version}"
        if form != STORAGE or getattr(file, "base_id", None) is not None:
            raise StoreError(
                f"{url}: {file.path} is of Lance's format {form}, or lies elsewhere; what is read "
                f"here is {STORAGE}, as videomae-fast store import --kind lance writes it"
            )
        found[int(fragment.fragment_id)] = f"data/{file.path}"
    return found


def _rows(
    url: str, data: Any, fragments: list[int], digest: Any
) -> Iterator[list[tuple[Row, int, int]]]:
    """What the rows say, with the numbers of their files and their clips' places there."""
    numbers = {fragment: number for number, fragment in enumerate(fragments)}
    try:
        for batch in data.to_batches(columns=[*COLUMNS, CLIP], with_row_address=True):
            rows = []
            for said in batch.to_pylist():
                place, address = said.pop(CLIP), said.pop("_rowaddr")
                digest.update(named_by(said))
                rows.append((row_of(said), numbers[address >> _FRAGMENT], place["position"]))
            yield rows
    except Exception as error:  # its errors are of several kinds, and not documented
        raise StoreError(f"{url}: its columns can't be read: {sentence(error)}") from error
