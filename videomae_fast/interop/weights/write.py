"""Weights to files of a layout: whole, compared with what was meant, or not there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from videomae_fast.errors import WeightsError
from videomae_fast.interop.weights.contents import Content, content_of
from videomae_fast.interop.weights.hub_folders import WEIGHTS
from videomae_fast.interop.weights.layouts.hugging_face import BiasNames
from videomae_fast.interop.weights.model_weights import Change, Layout, ModelWeights
from videomae_fast.interop.weights.parts import Tally, tally
from videomae_fast.interop.weights.state_dicts import load_weights

_ENDINGS: Final[dict[Layout, tuple[str, ...]]] = {
    "official": (".safetensors", ".pth"),
    "ours": (".safetensors",),
    "mmaction2": (".pth",),
}
"""Of files; Hugging Face's layout is a folder, of any name."""


def write_weights(
    weights: ModelWeights,
    path: str | Path,
    layout: Layout,
    *,
    biases: BiasNames = "q_bias",
    licence: str | None = None,
) -> tuple[Tally, list[Change]]:
    """Writes a layout, reads it back and compares every bit.

    Args:
        weights: what to write.
        path: a new .pth or .safetensors file (official), .safetensors file (ours), .pth file
            (mmaction2) or folder (hugging-face). Nothing is overwritten; what is there, is whole.
        layout: of the file or folder.
        biases: spelling of the q and v biases in Hugging Face's layout, see
            :mod:`~videomae_fast.interop.weights.layouts.hugging_face`.
        licence: of the weights, by the Hub's name ("cc-by-nc-4.0"), for the model card that
            Hugging Face's layout has.

    Returns:
        What was written, by part, and what the layout can't say.

    Raises:
        WeightsError: the name has the wrong ending or is taken, the disk is full, or the layout
            can't hold these weights.
    """
    path = Path(path)
    endings = _ENDINGS.get(layout)
    if endings is not None and path.suffix not in endings:
        raise WeightsError(f"{path}: a file of this layout ends in {' or '.join(endings)}")
    content = content_of(weights, layout, biases=biases, licence=licence)
    state = _apart(content.state)
    _write_new(path, content, state)
    return tally(state), list(content.changes)


def _apart(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors contiguous, on the CPU, each in a memory of its own, as files need them."""
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for key, value in state.items():
        tensor = value.detach().cpu().contiguous()
        storage = tensor.untyped_storage()
        if storage.nbytes() != tensor.nbytes or storage.data_ptr() in seen:
            tensor = tensor.clone()
        seen.add(tensor.untyped_storage().data_ptr())
        found[key] = tensor
    return found


def _write_new(path: Path, content: Content, state: dict[str, Tensor]) -> None:
    """Writes beside `path`, compares with `state` what a reader finds there, then renames."""
    with _partial(path, sum(value.nbytes for value in state.values())) as partial:
        file = partial
        if content.documents:
            partial.mkdir()
            file = partial / WEIGHTS
            for name, text in content.documents.items():
                (partial / name).write_text(text, encoding="utf-8")
        if path.suffix == ".pth":
            torch.save({content.container: state}, file)
        else:
            save_file(state, file, metadata={"format": "pt", **content.metadata})
        back = load_weights(file)
        wrong = sorted(set(back) ^ set(state)) or [
            key for key, value in state.items() if not _same_bits(value, back[key])
        ]
        if wrong:
            raise WeightsError(f"{path}: not as written when read back: {', '.join(wrong[:5])}")
        del back
        with file.open("rb") as written:
            os.fsync(written.fileno())


def _same_bits(one: Tensor, other: Tensor) -> bool:
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    return torch.equal(one.reshape(-1).view(torch.uint8), other.reshape(-1).view(torch.uint8))


@contextmanager
def _partial(path: Path, size: int) -> Iterator[Path]:
    """A name beside `path` that becomes `path` at the end, or is removed if there is an error."""
    if path.exists() or path.is_symlink():
        raise WeightsError(f"{path}: is there already, and nothing is overwritten; name another")
    if not path.parent.is_dir():
        raise WeightsError(f"{path}: no such folder: {path.parent}")
    # The ending stays: it says how the file is read back.
    partial = path.with_name(f".partial-{os.getpid()}-{path.name}")
    try:
        yield partial
        partial.rename(path)
    except (OSError, RuntimeError, SafetensorError) as error:
        free = shutil.disk_usage(path.parent).free
        raise WeightsError(
            f"can't write {path}: {error}. It takes about {size / 1e6:.0f} MB, {free / 1e6:.0f} MB "
            "are free there"
        ) from error
    finally:
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            partial.unlink(missing_ok=True)
