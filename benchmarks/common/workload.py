"""What every contender of a comparison gets: the same weights, frames and masks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from videomae_fast import MAEConfig, MaskedAutoencoder, Masks, MaskSpec

Masking = Literal["dual", "encoder-only"]
Mixing = Literal["mixup", "cutmix"]
DecoderMask = Literal["running-cell", "random", "frame"]
MASKINGS: tuple[Masking, ...] = ("dual", "encoder-only")
MIXINGS: tuple[Mixing, ...] = ("mixup", "cutmix")
# Small enough to test a command with
TINY = MAEConfig(
    image_size=64, frames=8, width=32, depth=2, heads=2,
    decoder_width=16, decoder_heads=1, decoder_depth=2,
)  # fmt: skip


@dataclass(frozen=True)
class Workload:
    """A batch of random clips, and a model's shape and first weights.

    Attributes:
        config: the model's shape.
        batch: clips.
        ratio: decoder mask ratio of dual masking.
        decoder: decoder mask of dual masking.
        seed: of weights, frames and masks.
        device: where the contenders work.
    """

    config: MAEConfig
    batch: int
    ratio: float = 0.5
    seed: int = 0
    device: str = "cpu"
    decoder: DecoderMask = "running-cell"

    def spec(self, masking: Masking | Mixing) -> MaskSpec:
        """The masks of VideoMAE V2 (dual) or V1 (encoder-only).

        Raises:
            ValueError: a mixing, which has none.
        """
        if masking not in MASKINGS:
            raise ValueError(f"{masking} is a mixing of clips: fine-tuning has no masks")
        if masking == "dual":
            return MaskSpec(decoder=self.decoder, decoder_ratio=self.ratio)
        return MaskSpec(decoder="none")

    @cached_property
    def state(self) -> dict[str, Tensor]:
        """Weights, on the CPU; biases and norms are random too, so that each of them counts."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            state = MaskedAutoencoder(self.config).state_dict()
            return {
                name: value + 0.02 * torch.randn_like(value) if value.ndim == 1 else value
                for name, value in state.items()
            }

    @cached_property
    def frames(self) -> Tensor:
        """uint8 [B, T, H, W, 3], on the CPU; without values for the device "meta"."""
        size = self.config.image_size
        height, width = (size, size) if isinstance(size, int) else size
        shape = (self.batch, self.config.frames, height, width, 3)
        if self.device == "meta":
            return torch.empty(shape, dtype=torch.uint8, device="meta")
        return torch.randint(0, 256, shape, dtype=torch.uint8, generator=self._generator())

    @cached_property
    def mask_seeds(self) -> Tensor:
        """int64 [B], on the CPU."""
        return torch.randint(2**62, (self.batch,), generator=self._generator())

    def masks(self, masking: Masking | Mixing) -> Masks:
        """Those of the seeds, on the CPU, or without values on "meta"."""
        seeds = self.mask_seeds.to("meta") if self.device == "meta" else self.mask_seeds
        return Masks.from_seeds(seeds, self.config.grid, self.spec(masking))

    def describe(self) -> dict[str, Any]:
        """For a record."""
        return {
            "config": self.config.to_dict(),
            "batch": self.batch,
            "decoder_mask": self.decoder,
            "decoder_mask_ratio": self.ratio,
            "seed": self.seed,
            "device": self.device,
            "inputs": "random uint8 clips",
        }

    @staticmethod
    def from_description(found: Mapping[str, Any]) -> Workload:
        """The inverse of :meth:`describe`."""
        return Workload(
            MAEConfig.from_dict(found["config"]),
            found["batch"],
            found["decoder_mask_ratio"],
            found["seed"],
            found["device"],
            found["decoder_mask"],
        )

    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed)
