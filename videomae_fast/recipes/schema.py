"""What a run is made of: frozen sections of fields that say what they mean.

A configuration is a value. It builds nothing: each room makes what it needs from its own section
(:func:`videomae_fast.models.config.mae_config` from :class:`Model`, and so on). The defaults are
those of the recipe ``vit_b_hybrid``, but for the format of the data.

Field names in a section are short; ``flat=`` is the name on the command line where that differs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from videomae_fast.recipes.fields import Config, Section, SettingError, option
from videomae_fast.recipes.source import Source


@dataclass(frozen=True)
class Encoder(Section):
    """The encoder: an official size, and what differs from it."""

    called: ClassVar[str] = "model"

    size: Literal["small", "base", "large", "huge", "giant"] = option(
        "base", "model size that the fields below start from"
    )
    image_size: int | tuple[int, int] = option(
        224, "clip size: a side, or HEIGHTxWIDTH", unit="pixels", least=1
    )
    frames: int = option(16, "length of a clip", unit="frames", least=1)
    patch_size: int | None = option(
        None, "side of a token's cube (none: the size's)", unit="pixels", least=1
    )
    tubelet_size: int = option(2, "length of a token's cube", unit="frames", least=1)
    width: int | None = option(None, "encoder width (none: the size's)", unit="values", least=1)
    depth: int | None = option(None, "encoder depth (none: the size's)", unit="blocks", least=1)
    heads: int | None = option(None, "encoder attention heads (none: the size's)", least=1)
    mlp_ratio: float | None = option(
        None, "hidden width of an MLP over its width (none: the size's)", least=0
    )
    init: str | None = option(
        None,
        "weights to start from, in any layout that convert reads, or a run's folder; read at step "
        "0 only, and recorded in the run's state (none: drawn from the seed)",
        resumable=True,
    )
    learned_positions: bool = option(
        False, "the encoder's positions are learned instead of the fixed sinusoid"
    )
    layer_scale: float = option(0.0, "initial value of LayerScale; 0 leaves it out", least=0)
    norm_eps: float = option(
        1e-6, "LayerNorm's epsilon in all blocks and after the encoder", least=0
    )
    final_norm_eps: float = option(
        1e-6, "LayerNorm's epsilon before the decoder's and the classifier's head", least=0
    )
    drop_path: float = option(
        0.0,
        "stochastic depth rate of the last block; drawn for each clip from its own seed, as masks "
        "are, so it is the same in any number of processes",
        least=0,
        below=1,
    )


@dataclass(frozen=True)
class Model(Encoder):
    """The model: an official size, and what differs from it."""

    decoder_width: int | None = option(
        None, "decoder width (none: the size's)", unit="values", least=1
    )
    decoder_depth: int = option(4, "decoder depth", unit="blocks", least=1)
    decoder_heads: int | None = option(None, "decoder attention heads (none: the size's)", least=1)
    decoder_mlp_ratio: float | None = option(
        None, "hidden width of the decoder's MLPs over its width (none: mlp_ratio)", least=0
    )
    encoder_norm: bool = option(
        True,
        "LayerNorm after the encoder, as the official code has it; Hugging Face's models leave it "
        "out by default",
    )


@dataclass(frozen=True)
class Masks(Section):
    """Which tokens the encoder sees, the decoder makes, and the loss counts."""

    encoder: Literal["tube", "random", "frame"] = option(
        "tube",
        "what the encoder does not see: the same places in all frames (tube), any cubes (random), "
        "or whole time slots (frame)",
        flat="encoder_mask",
    )
    encoder_ratio: float = option(
        0.9, "share that the encoder does not see", above=0, below=1, flat="encoder_mask_ratio"
    )
    decoder: Literal["running-cell", "none", "random", "frame"] = option(
        "running-cell", "what is not decoded; none is VideoMAE V1", flat="decoder_mask"
    )
    decoder_ratio: float = option(
        0.5,
        "share that is not decoded, between 0 and 1; unused with decoder mask none",
        flat="decoder_mask_ratio",
    )
    loss_over: Literal["invisible", "all"] = option(
        "invisible", "decoded tokens in the loss: those that the encoder did not see, or all"
    )
    skip_seen: bool = option(
        False,
        "leave out decoder mask tokens at positions the encoder saw: faster, and slightly "
        "another function than the official one",
    )


@dataclass(frozen=True)
class Target(Section):
    """What the decoder predicts of a masked token."""

    normalize: bool = option(
        True, "predict pixels normalised per cube and colour channel", flat="normalize_target"
    )
    ignore_flat_cubes: bool = option(
        False,
        "weight 0 for cubes without texture, whose normalised target is noise; the "
        "official code keeps them",
    )


@dataclass(frozen=True)
class Reading(Section):
    """Which clips are drawn, and how they come to the device."""

    called: ClassVar[str] = "data"

    lists: tuple[Source, ...] = option(
        (), "data lists, see below; where they lie may change when a run is resumed", flat="data"
    )
    stride: int = option(
        4,
        "from one sampled frame to the next, where a list has none of its own",
        unit="frames of the video",
        least=1,
    )
    samples: int = option(
        4,
        "clips of each decoded video: crops and masks of their own",
        unit="clips",
        least=1,
        flat="samples_per_video",
    )
    epoch_size: int | None = option(
        None, "drawn per epoch (none: as many as the lists have)", unit="videos", least=1
    )
    order: Literal["computed", "table"] = option(
        "computed",
        "how the order of the draws is made: computed, for lists of any length, or by a table of "
        "each epoch, as runs did before there was this field",
        formerly="table",
    )
    block: int = option(
        1,
        "entries next to each other that are drawn soon after one another, for storage that is "
        "read in blocks; 1 shuffles each entry by itself",
        unit="entries",
        least=1,
        flat="shuffle_block",
    )
    window: int = option(
        64,
        "blocks whose entries are mixed, where they are blocks",
        unit="blocks",
        least=1,
        flat="shuffle_window",
    )
    decoder: str = option(
        "pyav",
        "video decoder: pyav, decord or torchcodec; all give the same frames",
        resumable=True,
    )
    device_decoder: Literal["none", "dali", "torchcodec-cuda"] = option(
        "none",
        "decode on the training device: dali, torchcodec-cuda or none; what it can't decode, "
        "loader processes decode (its pixels differ by a few grey levels)",
        resumable=True,
    )
    cache: str | None = option(
        None,
        "folder of decoded videos (see videomae-fast cache); a video that is not there is added "
        "while there is room",
        resumable=True,
    )
    cache_gb: float = option(
        100.0, "limit of the cache", unit="10^9 bytes", least=0, resumable=True
    )
    prefetch_gb: float = option(
        2.0,
        "clips of stores in an object store that a machine fetches ahead, in the order of draws",
        unit="10^9 bytes",
        above=0,
        resumable=True,
    )
    store_timeout: float = option(
        300.0,
        "an object store that can't be reached for longer ends the run, which is saved before; of "
        "several processes that takes at least 60 s less than group_timeout",
        unit="seconds",
        above=0,
        resumable=True,
    )
    crop_on: Literal["auto", "worker", "device"] = option(
        "auto",
        "where clips are cropped, with the same result: worker, device, or auto (a GPU where the "
        "run is on one)",
        resumable=True,
    )
    decode_timeout: float = option(
        120.0,
        "a loader process that reads one video for longer counts as hung: it is replaced, "
        "the video counts as one that can't be read",
        unit="seconds",
        above=0,
        resumable=True,
    )
    workers: int = option(
        4,
        "loader processes of each training process; 0 reads in the training process",
        least=0,
        resumable=True,
    )
    max_failed_share: float = option(
        0.01,
        "end with an error when more than this share of the draws can't be read "
        "(looked at from 1,000 draws or one epoch on)",
        least=0,
        most=1,
        resumable=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.block > 1 and self.order == "table":
            raise SettingError(
                "data.block", "blocks are of the computed data.order, not of a table"
            )
        if self.cache is not None and self.device_decoder != "none":
            raise SettingError(
                "data.cache",
                "data.cache and data.device_decoder exclude each other: what is in the cache needs "
                "no decoder",
            )


@dataclass(frozen=True)
class Data(Reading):
    """Which clips are drawn, and how they come to the device."""

    format: Literal["plain", "unlabeled-hybrid"] = option(
        "plain",
        "plain, or unlabeled-hybrid: tell the parts of the one list apart by path, as "
        "the official loader does (stride 2 for Something-Something, AVA's file names)",
        flat="data_format",
    )
    scales: tuple[float, float] = option(
        (0.66, 1.0),
        "of crops, shares of the short side: those of the official 1, 0.875, 0.75 and 0.66 that "
        "lie from the first to the second",
        above=0,
        most=1,
        flat="crop_scales",
    )


@dataclass(frozen=True)
class Optim(Section):
    """The step: its videos, its learning rate, and what is done with the gradient."""

    videos_per_step: int = option(
        1024,
        "of an optimizer step over all processes; the learning rate scales with it",
        unit="videos",
        least=1,
    )
    accumulation: int = option(
        1,
        "parts that a process splits its share of a step into: less memory, the same gradient",
        unit="micro-batches",
        least=1,
        resumable=True,
    )
    base_lr: float = option(1e-3, "peak learning rate for 256 videos per step", least=0)
    min_lr: float = option(
        1e-5,
        "end of the cosine for 256 videos per step (scaled like the peak, as officially)",
        least=0,
    )
    optimizer: Literal["adamw", "apex"] = option(
        "adamw",
        "adamw (torch's fused), or apex (FusedAdam, where NVIDIA apex is built: doctor says why "
        "not); the same computation and state",
        resumable=True,
    )
    betas: tuple[float, float] = option((0.9, 0.95), "AdamW's two decay rates", least=0, below=1)
    weight_decay: float = option(
        0.05, "of weights; 1-D parameters, biases and the mask token have none", least=0
    )
    weight_decay_end: float | None = option(
        None,
        "weight decay at the end of half a cosine over the run, in groups that decay (none: "
        "weight_decay all along)",
        least=0,
    )
    clip_grad: float = option(0.0, "largest norm of the gradient; 0 does not clip", least=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weight_decay == 0 and self.weight_decay_end is not None:
            raise SettingError(
                "optim.weight_decay_end",
                "optim.weight_decay 0 means that no group decays, so optim.weight_decay_end would "
                "do nothing: leave it out, or begin above 0",
            )
        if self.min_lr > self.base_lr:
            raise SettingError(
                "optim.min_lr",
                f"optim.min_lr ({self.min_lr}) is above optim.base_lr ({self.base_lr}): the cosine "
                "falls from the second to the first",
            )


@dataclass(frozen=True)
class Schedule(Section):
    """How long the run is, and how the learning rate goes."""

    epochs: int = option(200, "length of the run", unit="epochs", least=1, resumable=True)
    steps: int | None = option(
        None,
        "length of the run in optimizer steps, in place of epochs (none: epochs)",
        unit="steps",
        least=1,
        resumable=True,
    )
    warmup_epochs: int = option(20, "linear warm-up", unit="epochs", least=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps is None and self.warmup_epochs > self.epochs:
            raise SettingError(
                "schedule.warmup_epochs",
                f"schedule.warmup_epochs ({self.warmup_epochs}) is longer than schedule.epochs "
                f"({self.epochs}): lower the first or raise the second",
            )


@dataclass(frozen=True)
class Run(Section):
    """Where and how the run computes, and what it writes."""

    seed: int = option(
        0, "of the weights, and of all that is drawn from the data", least=0, below=2**63
    )
    device: Literal["auto", "cpu", "cuda"] = option(
        "auto", "auto (a GPU where there is one), cpu or cuda", resumable=True
    )
    precision: Literal["auto", "fp32", "bf16"] = option(
        "auto", "auto (bf16 autocast on a GPU, fp32 on the CPU), fp32 or bf16; weights are fp32"
    )
    step_mode: Literal["auto", "eager", "compiled", "captured"] = option(
        "auto",
        "how a step is launched: eager; compiled (torch.compile); captured (the whole step as one "
        "CUDA graph); auto (captured where a GPU would wait for launches, else eager)",
        resumable=True,
    )
    compile: bool = option(
        False, "old spelling of --step-mode compiled; goes with the next version", resumable=True
    )
    shadow_weights: bool = option(
        False,
        "with bf16: matmuls work on bf16 copies of the weights, which the update writes, instead "
        "of casting at each use; for one process and accumulation 1",
        resumable=True,
    )
    fp8: bool = option(
        False,
        "with bf16: qkv, fc1 and fc2 of blocks at least 1280 wide (ViT-H's and ViT-g's encoders) "
        "multiply 8-bit floats, forward and for the gradients of their inputs; needs a GPU of "
        "capability 8.9 or more (H100), and is emulated on the CPU",
    )
    deterministic: bool = option(
        False,
        "the same bits in every run on one kind of device with the same processes: attention and "
        "all else by algorithms that add up in a fixed order",
        resumable=True,
    )
    shard: str = option(
        "none",
        "processes that hold one copy of weights, gradients and moments together: none (each all "
        "of it), node (those of a machine), all, or their number",
        resumable=True,
    )
    reshard: Literal["auto", "yes", "no"] = option(
        "auto",
        "whether sharded weights are freed after each block and gathered again for backward: yes, "
        "no, or auto (where all together would take over a tenth of a GPU's memory)",
        resumable=True,
    )
    group_timeout: float = option(
        600.0,
        "how long processes of a run wait for each other, once the first step is done; longer is "
        "an error that names who is missing",
        unit="seconds",
        above=0,
        resumable=True,
    )
    check_replicas_every: int = option(
        0,
        "compare the copies of the weights on all processes, bit by bit, and end the run where a "
        "device went wrong; 0 never does",
        unit="steps",
        least=0,
        resumable=True,
    )
    activation_checkpointing: bool = option(
        False, "recompute blocks in the backward pass: less memory, more time", resumable=True
    )
    recompute: bool = option(
        False,
        "make GELU's output and normalised tokens again in the backward pass instead of keeping "
        "them: a third less memory for activations, little more time",
        resumable=True,
    )
    log_every: int = option(
        20,
        "between progress lines; only then does the device wait for the host",
        unit="steps",
        least=1,
        resumable=True,
    )
    tensorboard: bool = option(
        False, "also write TensorBoard events to OUTPUT/tensorboard", resumable=True
    )
    prometheus: str | None = option(
        None,
        "file that the newest numbers are written to as Prometheus's text, for a node exporter's "
        "textfile collector (none: no such file)",
        resumable=True,
    )
    checkpoint_every: int = option(
        1000,
        "between checkpoints; the last step always has one",
        unit="steps",
        least=1,
        resumable=True,
    )
    keep_checkpoints: int = option(3, "newest checkpoints kept", least=1, resumable=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        number = self.shard.isdecimal() and int(self.shard) > 0
        if not number and self.shard not in ("none", "node", "all"):
            raise SettingError(
                "run.shard", f"run.shard is {self.shard!r}: none, node, all or a number"
            )
        if self.reshard != "auto" and self.shard in ("none", "1"):
            raise SettingError(
                "run.reshard",
                f"run.reshard {self.reshard} is for sharded weights, and run.shard is "
                f"{self.shard}: leave it auto, or shard",
            )


@dataclass(frozen=True)
class PretrainConfig(Config):
    """A pre-training run."""

    task: ClassVar[str] = "pretrain"

    model: Model = Model()
    masks: Masks = Masks()
    target: Target = Target()
    data: Data = Data()
    optim: Optim = Optim()
    schedule: Schedule = Schedule()
    run: Run = Run()
