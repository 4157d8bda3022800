"""Checkpoints: what a run goes on from."""

from videomae_fast.interop.weights.run_folders import (
    CHECKSUM,
    FORMAT,
    MODEL,
    OPTIMIZER,
    STATE,
    WITHOUT_CHECKSUM,
    Log,
    Saved,
    checkpoints,
    folder_name,
    newest,
    read,
    weights_file,
)
from videomae_fast.training.checkpoint.folder import save, set_aside, versions

__all__ = [
    "CHECKSUM",
    "FORMAT",
    "MODEL",
    "OPTIMIZER",
    "STATE",
    "WITHOUT_CHECKSUM",
    "Log",
    "Saved",
    "checkpoints",
    "folder_name",
    "newest",
    "read",
    "save",
    "set_aside",
    "versions",
    "weights_file",
]
