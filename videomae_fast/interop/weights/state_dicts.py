"""Weights files: safetensors, and torch's checkpoints without executing their pickles."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from safetensors.torch import load_file
from torch import Tensor

from videomae_fast.errors import WeightsError
from videomae_fast.interop.reading.contents import format_of
from videomae_fast.interop.reading.refusal import AGAIN, refused
from videomae_fast.interop.reading.torch_files import TorchFile, open_archive, open_stream
from videomae_fast.interop.reading.torch_pickles import TensorRecord
from videomae_fast.interop.weights.check import named
from videomae_fast.pickles import CodeError, Inert, Named

_NESTS: Final = ("model", "module", "state_dict", "model_state_dict")
_DEEPEST: Final = 8
_PREFIXES: Final = ("_orig_mod.", "module.")
_SHARED: Final = 4


def load_weights(path: str | Path) -> dict[str, Tensor]:
    """The state dict of a weights file, on the CPU, with the keys that it has.

    The format is seen from the contents, not from the name. The file is mapped into memory, not
    read at once: what is never touched (an optimizer's state in a checkpoint) costs nothing.
    Checksums of the tensors' bytes, where the file has them, are compared.

    Un-nests `model` / `module` / `state_dict` / `model_state_dict`, and strips the prefixes that
    torch.compile (`_orig_mod.`) and DistributedDataParallel (`module.`) leave behind.

    Nothing in a checkpoint is executed, and objects beside the weights are read past, of whatever
    class (:mod:`videomae_fast.pickles`).

    Args:
        path: .safetensors, or a torch checkpoint (.pth, .pt, .bin).

    Returns:
        The tensors by their names.

    Raises:
        WeightsError: no such file, not a weights file, damaged, claiming more than it holds, or
            with a call in it that would start something elsewhere.
    """
    path = Path(path)
    kind = format_of(path)
    if kind == "safetensors":
        with refused(path, "not a whole safetensors file"):
            state = load_file(path)
        if not state:
            raise WeightsError(f"{path}: not a state dict: nothing in it; {AGAIN}")
    else:
        state = _load_checkpoint(path, open_archive if kind == "zip" else open_stream)
    _check_size(path, state)
    return strip_prefixes(state, origin=str(path))


def _load_checkpoint(path: Path, opened: Callable[[Path], TorchFile]) -> dict[str, Tensor]:
    try:
        with refused(path, "not a torch checkpoint"):
            file = opened(path)
    except WeightsError as error:
        if isinstance(error.__cause__, CodeError):
            raise WeightsError(
                f"{path}: calls {str(error.__cause__)[:80]}, which would execute code from the "
                "file where pickles are trusted; here nothing was executed. Save its state dict "
                "alone, or as safetensors, on a machine that trusts it"
            ) from error.__cause__
        raise
    state = {}
    for key, record in _unnest(path, file.value).items():
        with refused(path, f"{key[:80]} can't be read"):
            state[key] = file.tensor(record)
    return state


def _unnest(path: Path, value: Any) -> dict[str, TensorRecord]:
    """The state dict among what a checkpoint holds."""
    for _ in range(_DEEPEST):
        if not isinstance(value, dict):
            break
        inner = [value[key] for key in _NESTS if isinstance(value.get(key), dict)]
        if not inner:
            break
        value = inner[0]
    if not isinstance(value, dict):
        raise WeightsError(
            f"{path}: holds a {_class_of(value)}, not a state dict; save model.state_dict()"
        )
    if not value:
        raise WeightsError(f"{path}: not a state dict: nothing in it")
    others = {key: part for key, part in value.items() if not isinstance(part, TensorRecord)}
    if others or not all(isinstance(key, str) for key in value):
        shown = [
            f"{str(key)[:80] if isinstance(key, str | int) else _class_of(key)} ({_class_of(part)})"
            for key, part in (others or value).items()
        ]
        raise WeightsError(
            f"{path}: not a state dict: {named(shown, 5)} in it; save model.state_dict()"
        )
    return value


def _class_of(value: Any) -> str:
    """The class of what a pickle holds, also of what was not made of it."""
    name = value.name if isinstance(value, Inert | Named) else type(value).__name__
    return "tensor" if isinstance(value, TensorRecord) else name[:80]


def _check_size(path: Path, state: Mapping[str, Tensor]) -> None:
    """Tensors may share memory, but not so that a small file becomes a large model."""
    size, claimed = path.stat().st_size, sum(value.nbytes for value in state.values())
    if claimed > _SHARED * size:
        raise WeightsError(
            f"{path}: its tensors take {claimed:,} bytes, the file has {size:,}: {AGAIN}"
        )


def strip_prefixes(
    state: Mapping[str, Tensor], prefixes: Sequence[str] = _PREFIXES, origin: str = "state dict"
) -> dict[str, Tensor]:
    """The state dict without these prefixes, in whatever order and however often they are there.

    Args:
        prefixes: by default those of torch.compile and DistributedDataParallel.

    Raises:
        WeightsError: two keys become the same.
    """
    stripped: dict[str, Tensor] = {}
    for key, value in state.items():
        start = 0
        while prefix := next((p for p in prefixes if key.startswith(p, start)), ""):
            start += len(prefix)
        name = key[start:]
        if name in stripped:
            raise WeightsError(f"{origin}: two entries become {name!r}, one is {key!r}")
        stripped[name] = value
    return stripped
