"""Weights files of each layout: read any, write any, whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from videomae_fast.errors import WeightsError
from videomae_fast.interop.reading.refusal import refused
from videomae_fast.interop.weights.description import METADATA, describe, description_of
from videomae_fast.interop.weights.folders import file_of
from videomae_fast.interop.weights.hugging_face import (
    CONFIG,
    PROCESSOR,
    WEIGHTS,
    from_hugging_face,
    from_hugging_face_file,
    is_hugging_face,
    is_hugging_face_folder,
    processor_settings,
    to_hugging_face,
)
from videomae_fast.interop.weights.hugging_face_keys import BiasNames
from videomae_fast.interop.weights.layouts import SourceHints, infer_config, kind_of, unwrapped
from videomae_fast.interop.weights.model_weights import (
    Change,
    Layout,
    ModelWeights,
    has_official_eps,
    origin_of,
)
from videomae_fast.interop.weights.parts import Tally, tally
from videomae_fast.interop.weights.state_dicts import load_weights


def read_weights(path: str | Path, told: SourceHints | None = None) -> ModelWeights:
    """Weights of any layout; which one it is, is seen from the files and keys.

    Args:
        path: an official checkpoint (.pth, or .safetensors with official keys), as other code wraps
            it too (:func:`~.layouts.unwrapped`), one of our .safetensors
            files, a folder of Hugging Face's (or the weights file in one), a checkpoint of
            DeepSpeed's or the folder of its `latest`, a run's folder (its newest whole checkpoint
            is taken) or a checkpoint's.
        told: what official files don't say.

    Raises:
        WeightsError: not such a file; or tensors are missing, unused or of another shape.
    """
    path, told = Path(path), told or SourceHints()
    if path.is_dir():
        if is_hugging_face_folder(path):
            return from_hugging_face(path, told)
        path = file_of(path)
    said = description_of(path)
    state = load_weights(path)
    name = str(path)
    if said is not None:
        told.check(said.config, name)
        origin = origin_of(name, "ours", state)
        return ModelWeights(
            said.kind, said.config, state, origin, options=said.options, labels=said.labels
        )
    state = unwrapped(state, name)
    if is_hugging_face(state):
        return from_hugging_face_file(path, state, told)
    with refused(name, "its tensors describe no model"):
        kind = kind_of(state, name)
        config = infer_config(state, kind, told, name)
    origin = origin_of(name, "official", state)
    if kind != "pre-training":
        return ModelWeights(kind, config, state, origin)
    assumed = Change("kept", "normalize_target true, as in all recipes: official files don't say")
    options = {"normalize_target": True}
    return ModelWeights(kind, config, state, origin, options=options, changes=(assumed,))


def write_weights(
    weights: ModelWeights, path: str | Path, layout: Layout, *, biases: BiasNames = "q_bias"
) -> tuple[Tally, list[Change]]:
    """Writes a layout, reads it back and compares every bit.

    Args:
        path: a new .pth or .safetensors file (official), .safetensors file (ours), or folder
            (hugging-face). Nothing is overwritten; what is there, is whole.
        biases: spelling of the q and v biases in Hugging Face's layout, see
            :mod:`~videomae_fast.interop.weights.hugging_face_keys`.

    Returns:
        What was written, by part, and what the layout can't say.

    Raises:
        WeightsError: the name has the wrong ending or is taken, the disk is full, or the layout
            can't hold these weights.
    """
    path = Path(path)
    if layout == "hugging-face":
        settings, state, changes = to_hugging_face(weights, biases=biases)
        state = _apart(state)

        def write(partial: Path) -> None:
            partial.mkdir()
            for name, said in ((CONFIG, settings), (PROCESSOR, processor_settings(weights.config))):
                text = json.dumps(said, indent=2, ensure_ascii=False) + "\n"
                (partial / name).write_text(text, encoding="utf-8")
            save_file(state, partial / WEIGHTS, metadata={"format": "pt"})

        _write_new(path, write, state, inside=WEIGHTS)
        return tally(state), changes
    endings = (".safetensors",) if layout == "ours" else (".safetensors", ".pth")
    if path.suffix not in endings:
        raise WeightsError(f"{path}: a file of this layout ends in {' or '.join(endings)}")
    state, changes = _apart(weights.state), []
    metadata = {"format": "pt"}
    if layout == "ours":
        metadata[METADATA] = describe(weights)
    else:
        changes = _check_official(weights)

    def write_file(partial: Path) -> None:
        if path.suffix == ".pth":
            torch.save({"model": state}, partial)
        else:
            save_file(state, partial, metadata=metadata)

    _write_new(path, write_file, state)
    return tally(state), changes


def _check_official(weights: ModelWeights) -> list[Change]:
    """What an official file can't say, which is everything but tensors.

    Raises:
        WeightsError: the official code would compute something else.
    """
    config = weights.config
    if not has_official_eps(config):
        raise WeightsError(
            f"{weights.origin.name}: LayerNorm's epsilon is {config.norm_eps:g} in blocks and "
            f"{config.final_norm_eps:g} before the head; the official code has 1e-6 and its files "
            "can't say otherwise. Take it with --official-eps (with_official_eps), which changes "
            "the function slightly"
        )
    if weights.kind == "pre-training":
        other = [
            what
            for what, there in (
                ("no norm after the encoder", not config.encoder_norm),
                ("another MLP ratio in the decoder", config.decoder_mlp_ratio is not None),
            )
            if there
        ]
        if other:
            raise WeightsError(
                f"{weights.origin.name}: has {' and '.join(other)}, which the official code can't; "
                "write it with --to ours or --to hugging-face, or make a classifier of it"
            )
    changes = []
    try:
        read = infer_config(
            weights.state, weights.kind, SourceHints(), weights.origin.name
        ).to_dict()
    except WeightsError:
        read = {}
    asked = {
        name: value
        for name, value in config.to_dict().items()
        if name in ("heads", "decoder_heads", "frames", "image_size") and read.get(name) != value
    }
    if weights.kind != "pre-training":
        asked.pop("decoder_heads", None)
    if asked:
        said = ", ".join(f"{name} {value}" for name, value in asked.items())
        changes.append(Change("left out", f"{said}: to be said again when the file is read"))
    changes += [
        Change("left out", f"option {option}={value}, which official files can't say")
        for option, value in weights.options.items()
        if value != (option == "normalize_target")
    ]
    if weights.labels is not None:
        changes.append(Change("left out", "names of the classes, which official files can't say"))
    return changes


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


def _write_new(
    path: Path, write: Callable[[Path], None], state: Mapping[str, Tensor], inside: str = ""
) -> None:
    """Writes beside `path`, compares with `state` what a reader finds there, then renames."""
    with _partial(path, sum(value.nbytes for value in state.values())) as partial:
        write(partial)
        file = partial / inside if inside else partial
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
