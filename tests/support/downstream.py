"""Values of the official code beyond pre-training: ``tests/golden/downstream_*.safetensors``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from videomae_fast import MAEConfig

_GOLDEN = Path(__file__).parents[1] / "golden"


@dataclass(frozen=True)
class Downstream:
    """A file of them.

    Attributes:
        info: what it says of itself.
        tensors: by name.
    """

    info: dict[str, Any]
    tensors: dict[str, Tensor]

    @property
    def parameters(self) -> dict[str, Tensor]:
        """The model's, by their official names."""
        before = "param/"
        return {k.removeprefix(before): v for k, v in self.tensors.items() if k.startswith(before)}

    @property
    def config(self) -> MAEConfig:
        """The model's."""
        shape = self.info["config"]
        more = {name: shape[name] for name in ("tubelet_size", "mlp_ratio") if name in shape}
        return MAEConfig(
            image_size=shape["img_size"],
            frames=shape["all_frames"],
            patch_size=shape["patch_size"],
            width=shape["embed_dim"],
            depth=shape["depth"],
            heads=shape["num_heads"],
            **more,
        )


def downstream(name: str) -> Downstream:
    """The golden values called ``downstream_<name>``."""
    with safe_open(_GOLDEN / f"downstream_{name}.safetensors", "pt") as file:
        info = json.loads((file.metadata() or {}).get("info", "{}"))
        return Downstream(info, {key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118
