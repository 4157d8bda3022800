"""One optimizer step, from micro-batches to new weights, without reading from the device."""

from __future__ import annotations

import torch
from torch import Tensor

from videomae_fast.data.loader.pipeline import ClipBatch
from videomae_fast.masks import Masks
from videomae_fast.models.masked_autoencoder import MaskedAutoencoder
from videomae_fast.training.config import PretrainConfig
from videomae_fast.training.distributed import World, videos_per_micro_batch, without_sync
from videomae_fast.training.optimizer import make_optimizer

COLUMNS = ("loss_sum", "loss_weight", "failed_clips", "grad_norm", "non_finite")
"""What a step reports: over all processes, in this order."""


def build_model(config: PretrainConfig) -> MaskedAutoencoder:
    """The model with weights drawn from the seed: the same on every process and device."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return MaskedAutoencoder(
            config.model_config(),
            drop_path=config.drop_path,
            activation_checkpointing=config.activation_checkpointing,
            normalize_target=config.normalize_target,
            ignore_flat_cubes=config.ignore_flat_cubes,
        )


class TrainStep:
    """Model, optimizer, and what one step does with them.

    The gradient is that of the mean over **all** tokens in the loss of the global step: a token
    counts the same whichever micro-batch or process it is in, also where their numbers differ
    (random decoder masks, clips that could not be read, flat cubes). Backward runs on the loss
    sum over a static number of tokens; what that is off by is known on the device after the step's
    sums are added up, and goes to fused AdamW as its ``grad_scale``, together with the clip
    coefficient. ``found_inf`` makes the update leave everything as it is: from the first step with
    a non-finite loss or gradient on, so that the weights stay those before it until the host looks.
    Both are the attributes that torch's GradScaler sets; apex's FusedAdam gets them likewise.

    Args:
        model: on the CPU, weights loaded.
    """

    def __init__(self, model: MaskedAutoencoder, config: PretrainConfig, world: World) -> None:
        self.config = config
        self.world = world
        self.device = world.device
        self.grid = model.config.grid
        self.spec = config.mask_spec()
        bf16 = {"fp32": False, "bf16": True, "auto": self.device.type == "cuda"}
        self.autocast = bf16[config.precision]
        self.model = model.to(self.device).train()
        self.optimizer = make_optimizer(
            self.model,
            weight_decay=config.weight_decay,
            betas=config.betas,
            exempt=model.no_weight_decay(),
            impl=config.optimizer,
        )
        if config.compile:
            self.model.compile()  # in place: keys keep their names
        self.replica = world.replicate(self.model)
        videos = videos_per_micro_batch(config.videos_per_step, world.size, config.accumulation)
        clips = videos * config.samples_per_video * config.accumulation
        self.tokens = float(clips * self.spec.counts(self.grid).loss)
        self._parameters = [p for p in self.model.parameters() if p.requires_grad]
        self._sums = torch.zeros(3, dtype=torch.float64, device=self.device)
        self._non_finite = torch.zeros((), dtype=torch.float32, device=self.device)

    def forward_backward(self, batch: ClipBatch, *, step: int, micro: int) -> None:
        """Adds a micro-batch's gradient; its losses stay on the device."""
        last = micro == self.config.accumulation - 1
        if self.config.drop_path > 0:  # nothing else draws from torch's generators
            torch.manual_seed(_mixed(self.config.seed, step, micro, self.world.rank))
        frames = batch.frames.to(self.device, non_blocking=True)
        ok = batch.ok.to(self.device, non_blocking=True)
        masks = Masks.from_seeds(batch.mask_seeds, self.grid, self.spec, device=self.device)
        with without_sync(self.replica, not last):
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
                # Weights even where all are 1: shapes and code paths never change.
                out = self.replica(frames, masks.weighted(ok), gradient_scale=1 / self.tokens)
            out.backward()
        with torch.no_grad():
            self._sums += torch.stack(
                [out.loss_sum.double(), out.loss_weight.double(), (~ok).sum().double()]
            )

    @torch.no_grad()
    def update(self, learning_rate: float) -> Tensor:
        """Updates the weights from the gradients.

        Returns:
            fp64 [5] on the device: the numbers of :data:`COLUMNS` for this step.
        """
        sums = self.world.add_up(self._sums)
        loss_sum, weight = sums[0], sums[1]
        # From the gradient that backward left to the one of the mean over all tokens
        to_mean = self.tokens * self.world.size / weight
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients) * to_mean
        empty = weight == 0  # not one clip could be read: no update
        bad = ~(loss_sum.isfinite() & norm.isfinite()) & ~empty
        self._non_finite = torch.maximum(self._non_finite, bad.float())

        scale = 1 / to_mean
        if self.config.clip_grad > 0:
            scale = scale / (self.config.clip_grad / (norm + 1e-6)).clamp(max=1)
        setattr(self.optimizer, "grad_scale", scale.float())  # noqa: B010
        setattr(self.optimizer, "found_inf", torch.maximum(self._non_finite, empty.float()))  # noqa: B010
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

        row = torch.cat([sums, norm[None].double(), self._non_finite[None].double()])
        self._sums = torch.zeros_like(self._sums)
        return row


def _mixed(*numbers: int) -> int:
    """One seed out of several numbers (FNV-1a over them, 63 bits)."""
    mixed = 0xCBF29CE484222325
    for number in numbers:
        for byte in number.to_bytes(8, "little"):
            mixed = (mixed ^ byte) * 0x100000001B3 % 2**64
    return mixed >> 1
