"""Which file a folder's weights are in: DeepSpeed's checkpoints, and runs of this package."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from videomae_fast.errors import CheckpointError, WeightsError
from videomae_fast.interop.reading.refusal import refused
from videomae_fast.interop.weights.run_folders import weights_file

_LATEST: Final = "latest"
_STATES: Final = "*model_states.pt"
_TAG_BYTES: Final = 1024
_LONGEST: Final = 600  # of what is said about checkpoints


def file_of(folder: Path) -> Path:
    """The weights file that a folder stands for.

    Args:
        folder: a checkpoint of DeepSpeed or the folder of its `latest`, a run's folder (its newest
            whole checkpoint is taken), or a checkpoint's folder. Hugging Face's are not looked for.

    Returns:
        The file's path.

    Raises:
        WeightsError: none of these, or not whole.
    """
    with refused(folder, "can't be read", "see that you may read it"):
        return _deepspeed(folder) or _run(folder)


def _deepspeed(folder: Path) -> Path | None:
    """``OUTPUT/latest`` names ``OUTPUT/TAG``, which holds ``mp_rank_00_model_states.pt``."""
    latest = folder / _LATEST
    if latest.is_file():
        folder = _tagged(latest)
    states = sorted(folder.glob(_STATES))
    if not states:
        if latest.is_file():
            raise WeightsError(
                f"{folder}: no {_STATES} in it, though {latest} names it; give another checkpoint"
            )
        return None
    if states[0].name.startswith("zero_pp_rank") or len(states) > 1:
        raise WeightsError(
            f"{folder}: DeepSpeed has cut the weights in pieces ({states[0].name}, …), as with "
            "ZeRO 3 or several ranks of a model; put them together with zero_to_fp32.py, which "
            "DeepSpeed leaves beside them, and give the file that it writes"
        )
    return states[0]


def _tagged(latest: Path) -> Path:
    """The folder that `latest` names, beside it."""
    with refused(latest, "can't be read", "give the checkpoint's own folder"):
        with latest.open("rb") as file:
            tag = file.read(_TAG_BYTES).decode("utf-8").strip()
        if not tag.isprintable() or Path(tag).name != tag or tag in ("", ".."):
            raise WeightsError(
                f"{latest}: names {tag[:40]!r}, which is no folder beside it; give the "
                "checkpoint's own folder"
            )
        found = latest.parent / tag
        if not found.is_dir():
            there = [path.parent.name for path in sorted(latest.parent.glob(f"*/{_STATES}"))]
            other = f"; give {' or '.join(dict.fromkeys(there))} there" if there else ""
            raise WeightsError(f"{latest}: names {tag!r}, which is not there{other}")
    return found


def _run(folder: Path) -> Path:
    try:
        return weights_file(folder)
    except CheckpointError as error:
        kinds = (".pth", ".pt", ".bin", ".safetensors")
        files = sorted(path.name for path in folder.iterdir() if path.suffix in kinds)
        other = f"; of the weights files in it, name one: {', '.join(files[:5])}" if files else ""
        said = str(error)
        said = said if len(said) <= _LONGEST else f"{said[:_LONGEST]} …"
        raise WeightsError(f"{said}{other}") from error
