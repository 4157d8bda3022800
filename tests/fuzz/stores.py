"""Damaged stores and tar files: each clip is read as it was written, or refused by name."""

from __future__ import annotations

import random
import shutil
import tarfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from videomae_fast.data.store.base import StoredClipError, StoreError
from videomae_fast.data.store.incoming import Facts, Incoming, TarMember, in_memory, tar_clips
from videomae_fast.data.store.opening import open_store
from videomae_fast.data.store.tar_writing import TarWriter

FULL = 5000
_CLIPS = 4
_WORDS = (
    b"null",
    b"-1",
    b"1e999",
    b'"',
    b"{",
    b"[",
    b"../",
    b"\0",
    b"99999999999999999999",
    b"true",
)


def run(count: int, seed: int, folder: Path) -> Iterator[str]:
    contents = _write(folder / "whole")
    for number in range(count):
        chance = random.Random(f"{seed} {number}")
        store = folder / "store"
        shutil.rmtree(store, ignore_errors=True)
        shutil.copytree(folder / "whole", store)
        file = chance.choice(sorted(one for one in store.rglob("*") if one.is_file()))
        file.write_bytes(_damaged(chance, file.read_bytes()))
        what = _read_as(store, contents) or _members_of(store)
        if what:
            yield f"case {number}, {file.relative_to(store)}: {what}"


def _write(folder: Path) -> list[bytes]:
    """A store of clips of random bytes; what they are."""
    chance = random.Random(0)
    contents = [chance.randbytes(700 * number + 1) for number in range(_CLIPS)]
    with TarWriter(folder, 1000) as writer:
        for number, content in enumerate(contents):
            video = in_memory("a.mp4", content)
            facts = Facts(len(content), video.checksum, sha256(content).digest(), 9, 25.0, 4)
            clip = Incoming(number, None, f"é {number}.mp4", number, "", ".mp4")
            writer.add(clip, facts, content)
        writer.commit()
    return contents


def _damaged(chance: random.Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(chance.randint(1, 3)):
        place = chance.randrange(len(changed) + 1)
        how = chance.randrange(5)
        if how == 0 and place < len(changed):
            changed[place] ^= 1 << chance.randrange(8)
        elif how == 1:
            del changed[place:]
        elif how == 2:
            changed[place : place + chance.randint(1, 64)] = bytes(chance.randint(0, 64))
        elif how == 3:
            changed[place : place + chance.randint(0, 4)] = chance.choice(_WORDS)
        else:
            changed[place:place] = chance.randbytes(chance.randint(1, 600))
    return bytes(changed)


def _read_as(store: Path, contents: list[bytes]) -> str:
    """What is wrong with what is read; empty where nothing is."""
    try:
        opened = open_store(store)
    except StoreError as error:
        return "" if str(store) in str(error) else f"refused without its name: {error}"
    except Exception as error:
        return f"opening: {type(error).__name__}: {error}"
    for row in range(min(len(opened), _CLIPS)):
        try:
            if opened.read(row) != contents[row]:
                return f"row {row} was read as something else"
            known = opened.row(row)
            if (known.source, known.label) != (f"é {row}.mp4", row):
                return f"row {row} is said to be {known}"
        except StoredClipError as error:
            if f"{store} row {row}" not in str(error):
                return f"refused without its name: {error}"
        except Exception as error:
            return f"row {row}: {type(error).__name__}: {error}"
    opened.close()
    return ""


def _members_of(store: Path) -> str:
    """What goes wrong where the tar files are taken for somebody else's."""
    for tar in store.rglob("*.tar"):
        try:
            for clip in tar_clips(tar):
                assert isinstance(clip.video, TarMember)
                with tarfile.open(tar) as file:
                    member = next(one for one in file if one.offset_data == clip.video.offset)
                    taken = file.extractfile(member)
                    assert taken is not None
                    if taken.read() != clip.video.load().content:
                        return f"{tar.name}: another content of {clip.video.name}"
        except StoreError as error:
            if str(tar) not in str(error):
                return f"refused without its name: {error}"
        except Exception as error:
            return f"{tar.name}: {type(error).__name__}: {error}"
    return ""
