"""The official scripts with tiny models on generated videos."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks.checkouts.child import Job
from benchmarks.checkouts.pairs import checkpoints, features, pair
from benchmarks.checkouts.rows import Row
from videomae_fast.demo.videos import render_videos

SIDE = 64
PRETRAINING = {
    "img_size": SIDE, "encoder_embed_dim": 64, "encoder_depth": 2, "encoder_num_heads": 2,
    "decoder_embed_dim": 32, "decoder_num_heads": 2,
}  # fmt: skip
CLASSIFIER = {"embed_dim": 64, "depth": 2, "num_heads": 2}
SIZES = {"PretrainVisionTransformer": PRETRAINING, "VisionTransformer": CLASSIFIER}


@dataclass(frozen=True)
class Material:
    """Generated videos and the lists that the scripts read.

    Attributes:
        folder: holds all of it.
        videos: the files.
    """

    folder: Path
    videos: list[Path]

    @staticmethod
    def made(folder: Path) -> Material:
        """Four videos of two seconds, with two classes."""
        videos = render_videos(folder / "videos", 4, size=96, seconds=2.0)
        found = Material(folder, videos)
        # V2's pre-training reads a start and a number of frames, all others read a class
        found.list_for("V2").write_text("".join(f"{path} 0 -1\n" for path in videos))
        labelled = "".join(f"{path} {i % 2}\n" for i, path in enumerate(videos))
        for path in (found.list_for("V1"), folder / "train.csv", folder / "val.csv"):
            path.write_text(labelled)
        return found

    def list_for(self, version: Literal["V1", "V2"]) -> Path:
        return self.folder / f"{version}.txt"


def _common(folder: Path, device: str) -> list[str]:
    return [
        "--output_dir", str(folder), "--device", device, "--batch_size", "2", "--epochs", "2",
        "--save_ckpt_freq", "1", "--warmup_epochs", "0", "--num_workers", "1", "--no_pin_mem",
        "--input_size", str(SIDE), "--num_frames", "16", "--sampling_rate", "2", "--lr", "0.05",
    ]  # fmt: skip


def pretraining(
    version: Literal["V1", "V2"],
    checkout: Path,
    material: Material,
    device: str,
    *,
    drop_path: float = 0.0,
    later_timm: bool = False,
) -> Row:
    """``run_mae_pretraining.py``, with its own engine, loader, masks and, in V2, compiler."""
    words = [
        "--model", "pretrain_videomae_small_patch16_224", "--decoder_depth", "1",
        "--mask_type", "tube", "--mask_ratio", "0.75", "--opt_betas", "0.9", "0.95",
        "--drop_path", str(drop_path), "--data_path", str(material.list_for(version)),
    ]  # fmt: skip
    if version == "V2":
        words += ["--decoder_mask_type", "run_cell", "--decoder_mask_ratio", "0.5"]

    def make(folder: Path) -> Job:
        return Job(
            str(checkout), "run_mae_pretraining", words + _common(folder, device), "get_model",
            False, device, SIZES, eager_draws=drop_path > 0, later_timm=later_timm,
        )  # fmt: skip

    draws = f", draws of timm {'since 0.5' if later_timm else '0.4.12'}" * bool(drop_path)
    name = f"{version}: run_mae_pretraining.py, drop path {drop_path:g}{draws}"
    label = name.split(":")[0] + f"-pretraining-{drop_path:g}-{later_timm}"
    return pair(name, make, material.folder / label, checkpoints)


def fine_tuning(checkout: Path, material: Material, device: str, *, drop_path: float) -> Row:
    """V2's ``run_class_finetuning.py``: EMA, layer decay, augmentation, validation and test."""
    words = [
        "--model", "vit_small_patch16_224", "--data_set", "Kinetics-400", "--nb_classes", "400",
        "--data_path", str(material.folder), "--short_side_size", str(SIDE),
        "--dist_eval", "--test_num_segment", "2", "--test_num_crop", "3", "--layer_decay", "0.75",
        "--model_ema", "--model_ema_decay", "0.5", "--drop_path", str(drop_path),
        "--init_scale", "1",
    ]  # fmt: skip

    def make(folder: Path) -> Job:
        return Job(
            str(checkout), "run_class_finetuning", words + _common(folder, device), "create_model",
            False, device, {"VisionTransformer": CLASSIFIER},
        )  # fmt: skip

    name = f"V2: run_class_finetuning.py with EMA and layer decay, drop path {drop_path:g}"
    return pair(name, make, material.folder / f"fine-tuning-{drop_path:g}", checkpoints)


def tad(checkout: Path, material: Material, device: str) -> Row:
    """V2's ``extract_tad_feature.py``, which loads a checkpoint."""

    def make(folder: Path) -> Job:
        weights = folder / "weights.pth"
        words = [
            "--data_set", "FINEACTION", "--data_path", str(material.folder / "videos"),
            "--save_path", str(folder / "features"), "--model", "vit_small_patch16_224",
            "--ckpt_path", str(weights),
        ]  # fmt: skip
        sizes: dict[str, dict[str, Any]] = {"VisionTransformer": CLASSIFIER}
        return Job(
            str(checkout), "extract_tad_feature", words, "create_model", False, device, sizes,
            saves_model=str(weights),
        )  # fmt: skip

    return pair("V2: extract_tad_feature.py", make, material.folder / "tad", features)
