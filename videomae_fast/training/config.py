"""Everything that a pre-training run is made of, in one flat, frozen dataclass.

Each field's metadata holds what the command line, the checks and the messages need: see
:func:`~videomae_fast.training.options.option`. The defaults are the recipe ``vit_b_hybrid``, but
for the data's format. Torch is imported only by the methods that build something.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import partial
from typing import TYPE_CHECKING, Any

from videomae_fast.errors import UsageError
from videomae_fast.training.options import as_source, check_value, option, plain

if TYPE_CHECKING:
    from videomae_fast.data.cache import CachedVideos
    from videomae_fast.data.dataset import ClipDataset
    from videomae_fast.data.sources import Source
    from videomae_fast.masks import MaskSpec
    from videomae_fast.models.config import MAEConfig
    from videomae_fast.training.schedule import Schedule

SIZES = ("small", "base", "large", "huge", "giant")

_model = partial(option, group="model")
_masks = partial(option, group="masks")
_data = partial(option, group="data")
_optim = partial(option, group="optimization")
_run = partial(option, group="run")


@dataclass(frozen=True)
class PretrainConfig:
    """A pre-training run. Every field is documented in its metadata, which ``--help`` shows.

    Raises:
        UsageError: a value that can't be; the message names the field and what to do.
    """

    size: str = _model(
        "base", "model size that the fields below start from", kind=str, choices=SIZES
    )
    image_size: int | tuple[int, int] = _model(
        224, "clip size in pixels: a side, or HEIGHTxWIDTH", least=1
    )
    frames: int = _model(16, "frames per clip", least=1)
    patch_size: int | None = _model(
        None, "side of a token's cube in pixels (none: the size's)", least=1
    )
    tubelet_size: int = _model(2, "frames of a token's cube", least=1)
    width: int | None = _model(None, "encoder width (none: the size's)", least=1)
    depth: int | None = _model(None, "encoder blocks (none: the size's)", least=1)
    heads: int | None = _model(None, "encoder attention heads (none: the size's)", least=1)
    mlp_ratio: float | None = _model(
        None, "hidden width of an MLP over its width (none: the size's)", kind=float, least=0
    )
    decoder_width: int | None = _model(None, "decoder width (none: the size's)", least=1)
    decoder_depth: int = _model(4, "decoder blocks", least=1)
    decoder_heads: int | None = _model(None, "decoder attention heads (none: the size's)", least=1)
    decoder_mlp_ratio: float | None = _model(
        None, "hidden width of the decoder's MLPs over its width (none: mlp_ratio)", kind=float,
        least=0,
    )  # fmt: skip
    encoder_norm: bool = _model(
        True,
        "LayerNorm after the encoder, as the official code has it; Hugging Face's models leave it "
        "out by default",
        kind=bool,
    )
    init: str | None = _model(
        None,
        "weights to start from, in any layout that convert reads, or a run's folder; read at step "
        "0 only, and recorded in the run's state (none: drawn from the seed)",
        kind=str,
        resumable=True,
    )
    learned_positions: bool = _model(
        False, "the encoder's positions are learned instead of the fixed sinusoid", kind=bool
    )
    layer_scale: float = _model(
        0.0, "initial value of LayerScale; 0 leaves it out", kind=float, least=0
    )
    norm_eps: float = _model(
        1e-6, "LayerNorm's epsilon in all blocks and after the encoder", kind=float, least=0
    )
    final_norm_eps: float = _model(
        1e-6,
        "LayerNorm's epsilon before the decoder's and the classifier's head",
        kind=float,
        least=0,
    )
    drop_path: float = _model(
        0.0,
        "stochastic depth rate of the last block; seeded by (seed, step, process), so it "
        "differs between numbers of processes",
        kind=float,
        least=0,
    )

    encoder_mask: str = _masks(
        "tube", "what the encoder does not see", kind=str, choices=("tube", "random", "frame")
    )
    encoder_mask_ratio: float = _masks(0.9, "share that the encoder does not see", kind=float)
    decoder_mask: str = _masks(
        "running-cell",
        "what is not decoded; none is VideoMAE V1",
        kind=str,
        choices=("running-cell", "none", "random", "frame"),
    )
    decoder_mask_ratio: float = _masks(
        0.5, "share that is not decoded; unused with decoder mask none", kind=float
    )
    loss_over: str = _masks(
        "invisible",
        "decoded tokens in the loss: those that the encoder did not see, or all",
        kind=str,
        choices=("invisible", "all"),
    )
    skip_seen: bool = _masks(
        False,
        "leave out decoder mask tokens at positions the encoder saw: faster, and slightly "
        "another function than the official one",
        kind=bool,
    )
    normalize_target: bool = _masks(
        True, "predict pixels normalised per cube and colour channel", kind=bool
    )
    ignore_flat_cubes: bool = _masks(
        False,
        "weight 0 for cubes without texture, whose normalised target is noise; the "
        "official code keeps them",
        kind=bool,
    )

    data: tuple[Source, ...] = _data((), "data lists; see --data", kind=object)
    data_format: str = _data(
        "plain",
        "plain, or unlabeled-hybrid: tell the parts of the one list apart by path, as "
        "the official loader does (stride 2 for Something-Something, AVA's file names)",
        kind=str,
        choices=("plain", "unlabeled-hybrid"),
    )
    stride: int = _data(
        4,
        "frames of the video from one sampled frame to the next, where a list has none of its own",
        least=1,
    )
    samples_per_video: int = _data(
        4, "clips of each decoded video: crops and masks of their own", least=1
    )
    epoch_size: int | None = _data(
        None, "videos drawn per epoch (none: as many as the lists have)", least=1
    )
    decoder: str = _data(
        "pyav",
        "video decoder: pyav, decord or torchcodec; all give the same frames",
        kind=str,
        resumable=True,
    )
    device_decoder: str = _data(
        "none",
        "decode on the training device: dali, torchcodec-cuda or none; what it can't decode, "
        "loader processes decode (its pixels differ by a few grey levels)",
        kind=str,
        choices=("none", "dali", "torchcodec-cuda"),
        resumable=True,
    )
    cache: str | None = _data(
        None,
        "folder of decoded videos (see videomae-fast cache); a video that is not there is added "
        "while there is room",
        kind=str,
        resumable=True,
    )
    cache_gb: float = _data(
        100.0, "limit of the cache in gigabytes", kind=float, least=0, resumable=True
    )
    crop_on: str = _data(
        "auto",
        "where clips are cropped, with the same result: worker, device, or auto (a GPU where the "
        "run is on one)",
        kind=str,
        choices=("auto", "worker", "device"),
        resumable=True,
    )
    decode_timeout: float = _data(
        120.0,
        "seconds after which a loader process that reads one video counts as hung: it is replaced, "
        "the video counts as one that can't be read",
        kind=float,
        least=0,
        resumable=True,
    )
    workers: int = _data(
        4,
        "loader processes of each training process; 0 reads in the training process",
        least=0,
        resumable=True,
    )
    max_failed_share: float = _data(
        0.01,
        "end with an error when more than this share of the draws can't be read "
        "(looked at from 1,000 draws or one epoch on)",
        kind=float,
        least=0,
        resumable=True,
    )

    videos_per_step: int = _optim(
        1024,
        "videos per optimizer step over all processes; the learning rate scales with it",
        least=1,
    )
    accumulation: int = _optim(
        1,
        "micro-batches that a process splits its part of a step into: less memory, the same "
        "gradient",
        least=1,
        resumable=True,
    )
    epochs: int = _optim(200, "length of the run", least=1, resumable=True)
    steps: int | None = _optim(
        None,
        "length of the run in optimizer steps, in place of epochs (none: epochs)",
        least=1,
        resumable=True,
    )
    warmup_epochs: int = _optim(20, "epochs of linear warm-up", least=0)
    base_lr: float = _optim(1e-3, "peak learning rate for 256 videos per step", kind=float, least=0)
    min_lr: float = _optim(
        1e-5,
        "end of the cosine for 256 videos per step (scaled like the peak, as officially)",
        kind=float,
        least=0,
    )
    optimizer: str = _optim(
        "adamw",
        "adamw (torch's fused), or apex (FusedAdam, where NVIDIA apex is built: doctor says why "
        "not); the same computation and state",
        kind=str,
        choices=("adamw", "apex"),
        resumable=True,
    )
    betas: tuple[float, float] = _optim((0.9, 0.95), "AdamW's two decay rates", kind=float)
    weight_decay: float = _optim(
        0.05, "of weights; 1-D parameters, biases and the mask token have none", kind=float, least=0
    )
    clip_grad: float = _optim(
        0.0, "largest norm of the gradient; 0 does not clip", kind=float, least=0
    )
    seed: int = _optim(0, "of the weights, and of all that is drawn from the data", least=0)

    device: str = _run(
        "auto",
        "auto (a GPU where there is one), cpu or cuda",
        kind=str,
        choices=("auto", "cpu", "cuda"),
        resumable=True,
    )
    precision: str = _run(
        "auto",
        "auto (bf16 autocast on a GPU, fp32 on the CPU), fp32 or bf16; weights are fp32",
        kind=str,
        choices=("auto", "fp32", "bf16"),
    )
    step_mode: str = _run(
        "auto",
        "how a step is launched: eager; compiled (torch.compile); captured (the whole step as one "
        "CUDA graph); auto (captured where a GPU would wait for launches, else eager)",
        kind=str,
        choices=("auto", "eager", "compiled", "captured"),
        resumable=True,
    )
    compile: bool = _run(
        False, "old spelling of --step-mode compiled; goes with the next version", kind=bool,
        resumable=True,
    )  # fmt: skip
    shadow_weights: bool = _run(
        False,
        "with bf16: matmuls work on bf16 copies of the weights, which the update writes, instead "
        "of casting at each use; for one process and accumulation 1",
        kind=bool,
        resumable=True,
    )
    deterministic: bool = _run(
        False,
        "the same bits in every run on one kind of device with the same processes: attention and "
        "all else by algorithms that add up in a fixed order",
        kind=bool,
        resumable=True,
    )
    activation_checkpointing: bool = _run(
        False,
        "recompute blocks in the backward pass: less memory, more time",
        kind=bool,
        resumable=True,
    )
    log_every: int = _run(
        20,
        "steps between progress lines; only then does the device wait for the host",
        least=1,
        resumable=True,
    )
    tensorboard: bool = _run(
        False, "also write TensorBoard events to OUTPUT/tensorboard", kind=bool, resumable=True
    )
    checkpoint_every: int = _run(
        1000, "steps between checkpoints; the last step always has one", least=1, resumable=True
    )
    keep_checkpoints: int = _run(3, "newest checkpoints kept", least=1, resumable=True)

    def __post_init__(self) -> None:
        for one in fields(self):
            check_value(one.name, getattr(self, one.name), one.default, one.metadata)
        if self.steps is None and self.warmup_epochs > self.epochs:
            raise UsageError(
                f"warmup_epochs ({self.warmup_epochs}) is longer than epochs ({self.epochs}): "
                "lower the first or raise the second"
            )
        if self.min_lr > self.base_lr:
            raise UsageError(
                f"min_lr ({self.min_lr}) is above base_lr ({self.base_lr}): the cosine falls from "
                "the second to the first"
            )
        if not all(0 <= beta < 1 for beta in self.betas):
            raise UsageError(f"betas {self.betas} must both be at least 0 and below 1")
        if self.seed >= 2**63:
            raise UsageError(f"seed ({self.seed}) must be below 2**63")
        if not self.drop_path < 1:
            raise UsageError(f"drop_path ({self.drop_path}) must be below 1")
        if self.cache is not None and self.device_decoder != "none":
            raise UsageError(
                "cache and device_decoder exclude each other: what is in the cache needs no decoder"
            )
        if not self.decode_timeout > 0:
            raise UsageError(f"decode_timeout ({self.decode_timeout}) must be above 0 seconds")
        if not self.max_failed_share <= 1:
            raise UsageError(f"max_failed_share ({self.max_failed_share}) must be at most 1")
        try:
            self.mask_spec().counts(self.model_config().grid)
        except UsageError:
            raise
        except ValueError as error:
            raise UsageError(f"the model and masks don't fit together: {error}") from None

    def model_config(self) -> MAEConfig:
        """The model's shape: the size's, with what this config sets."""
        from videomae_fast.models.config import MAEConfig

        names = {one.name for one in fields(MAEConfig)} & {one.name for one in fields(self)}
        values = {name: getattr(self, name) for name in names}
        # mypy reads the literals of MAEConfig; check_value has compared them
        size: Any = self.size
        set_here = {name: value for name, value in values.items() if value is not None}
        return MAEConfig.from_size(size, **set_here)

    def mask_spec(self) -> MaskSpec:
        """How clips are masked."""
        from videomae_fast.masks import MaskSpec

        kinds: dict[str, Any] = {
            "encoder": self.encoder_mask,
            "decoder": self.decoder_mask,
            "loss_over": self.loss_over,
        }
        return MaskSpec(
            encoder_ratio=self.encoder_mask_ratio,
            decoder_ratio=self.decoder_mask_ratio,
            skip_seen=self.skip_seen,
            **kinds,
        )

    def sources(self) -> list[Source]:
        """The data lists, split into the parts of UnlabeledHybrid where the format says so.

        Raises:
            UsageError: no list, or options that UnlabeledHybrid's parts set themselves.
            ListError: a list that can't be read.
        """
        from videomae_fast.data.sources import Source, unlabeled_hybrid

        if not self.data:
            raise UsageError("data names no list: give at least one with --data LIST")
        if self.data_format == "plain":
            return list(self.data)
        parts: list[Source] = []
        for source in self.data:
            if source != Source(source.path, source.root):
                raise UsageError(
                    f"{source.path}: with data_format unlabeled-hybrid a list takes no option but "
                    "root, since its parts set their own; use --data-format plain for others"
                )
            parts += unlabeled_hybrid(source.path, source.root)
        return parts

    def dataset(self) -> ClipDataset:
        """The clips of the lists.

        Raises:
            UsageError, ListError: as :meth:`sources`.
            BackendUnavailableError: the decoder is not installed.
        """
        from videomae_fast.data.dataset import ClipDataset

        return ClipDataset(
            self.sources(),
            frames=self.frames,
            stride=self.stride,
            image_size=self.image_size,
            samples=self.samples_per_video,
            decoder=self.decoder,
            seed=self.seed,
            epoch_size=self.epoch_size,
            cache=None if self.cache is None else self._cached(self.cache),
        )

    def _cached(self, folder: str) -> CachedVideos:
        from videomae_fast.data.cache import CachedVideos

        return CachedVideos(folder, round(self.cache_gb * 1e9))

    def total_steps(self, steps_per_epoch: int) -> int:
        """Length of the run in optimizer steps."""
        return steps_per_epoch * self.epochs if self.steps is None else self.steps

    def schedule(self, steps_per_epoch: int) -> Schedule:
        """The learning rate of each step: a function of the step and of the run's length.

        Raises:
            UsageError: the warm-up is longer than the run.
        """
        from videomae_fast.training.schedule import Schedule

        warmup, total = steps_per_epoch * self.warmup_epochs, self.total_steps(steps_per_epoch)
        if warmup > total:
            raise UsageError(
                f"warmup_epochs ({self.warmup_epochs}, of {steps_per_epoch} steps each) is longer "
                f"than the run of {total} steps: lower it or raise steps"
            )
        return Schedule.scaled(
            self.base_lr,
            self.min_lr,
            videos_per_step=self.videos_per_step,
            warmup_steps=warmup,
            total_steps=total,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; paths become strings, tuples lists."""
        values: dict[str, Any] = plain(asdict(self))
        return values

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> PretrainConfig:
        """The inverse of :meth:`to_dict`; fields that are left out take their defaults.

        Raises:
            UsageError: a key that is no field, or a value that can't be.
        """
        known = [one.name for one in fields(PretrainConfig)]
        values = dict(values)
        for name in values:
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                hint = f"; did you mean {close[0]}?" if close else ""
                raise UsageError(f"unknown field {name!r}{hint}")
        for name in ("image_size", "betas"):
            if isinstance(values.get(name), list):
                values[name] = tuple(values[name])
        if "data" in values:
            values["data"] = tuple(as_source(each) for each in values["data"])
        return PretrainConfig(**values)
