"""The official code itself as a contender, from a checkout that the user has.

    git clone https://github.com/OpenGVLab/VideoMAEv2
    python -m benchmarks ceilings --parts baselines --official-checkout VideoMAEv2

OpenGVLab/VideoMAEv2 ("V2") and MCG-NJU/VideoMAE ("V1", no decoder mask) are known. Their model
files are imported as they are, with stand-ins for the functions of timm that they import
(:mod:`benchmarks.official.timm_stand_in`). Targets, loss and the step around the model are those of
:mod:`benchmarks.official.step`, as the official engines need packages that nothing else here does.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from torch import Tensor, nn

from benchmarks.common.commit import git_commit
from benchmarks.common.workload import Masking, Workload
from benchmarks.contenders.accelerated import OfficialFromFrames, accelerate_if_asked
from benchmarks.contenders.base import Contender, UnavailableError, Variant, tables_to_device
from benchmarks.contenders.official import Official
from benchmarks.official.model import EPS
from benchmarks.official.timm_stand_in import CONTENT, standing_in
from videomae_fast import MAEConfig

# In the order in which they import each other
FILES = ("modeling_finetune", "modeling_pretrain")
FOLDERS: dict[Literal["V1", "V2"], str] = {"V2": "models", "V1": "."}


@dataclass(frozen=True)
class Checkout:
    """A folder with the official code.

    Attributes:
        version: "V2" (OpenGVLab/VideoMAEv2) or "V1" (MCG-NJU/VideoMAE).
        folder: where its model files are.
    """

    version: Literal["V1", "V2"]
    folder: Path

    @staticmethod
    def at(path: Path) -> Checkout:
        """The checkout in a folder, of the version whose layout it has.

        Raises:
            FileNotFoundError: neither layout is there.
        """
        for version, inside in FOLDERS.items():
            folder = path / inside
            if all((folder / f"{name}.py").is_file() for name in FILES):
                return Checkout(version, folder.resolve())
        raise FileNotFoundError(
            f"{path} is no checkout of OpenGVLab/VideoMAEv2 (models/modeling_pretrain.py) "
            "or MCG-NJU/VideoMAE (modeling_pretrain.py)"
        )

    def describe(self) -> dict[str, Any]:
        """For a record."""
        functions = [f.__name__ for group in CONTENT.values() for f in group]
        return {
            "version": self.version,
            "commit": git_commit(self.folder),
            "stand_ins_for_timm": functions,
        }

    def module(self) -> ModuleType:
        """The module with the pre-training model, imported once.

        It lives in a package of its own name, so that the checkout's ``models`` meets no other;
        the compiler can import it again by that name.
        """
        package = f"official_checkout_{hashlib.sha1(str(self.folder).encode()).hexdigest()[:8]}"
        name = f"{package}.{FILES[-1]}"
        if name in sys.modules:
            return sys.modules[name]
        root = ModuleType(package, f"The official code in {self.folder}.")
        root.__path__ = [str(self.folder)]
        sys.modules[package] = root
        aliases = {file: sys.modules.get(file) for file in FILES}
        try:
            with standing_in():
                for file in FILES:
                    module = importlib.import_module(f"{package}.{file}")
                    sys.modules[file] = module  # V1 imports its neighbour by its bare name
        except BaseException:
            for left in [name for name in sys.modules if name.split(".")[0] == package]:
                del sys.modules[left]
            raise
        finally:
            for file, before in aliases.items():
                sys.modules.pop(file, None)
                if before is not None:
                    sys.modules[file] = before
        return sys.modules[name]

    def classifier(self, config: MAEConfig, classes: int) -> nn.Module:
        """The official classifier of this shape, without drop path and dropout."""
        package = self.module().__name__.rpartition(".")[0]
        build: Callable[..., nn.Module] = sys.modules[f"{package}.{FILES[0]}"].VisionTransformer
        return build(
            img_size=config.image_size,
            patch_size=config.patch_size,
            num_classes=classes,
            embed_dim=config.width,
            depth=config.depth,
            num_heads=config.heads,
            mlp_ratio=config.mlp_ratio,
            qkv_bias=True,
            norm_layer=partial(nn.LayerNorm, eps=EPS),
            all_frames=config.frames,
            tubelet_size=config.tubelet_size,
            use_mean_pooling=True,
            init_scale=1.0,
        )

    def model(self, config: MAEConfig, *, checkpointing: bool) -> nn.Module:
        """The official model of this shape.

        Raises:
            UnavailableError: V1 with another number of frames than its 16.
        """
        build: Callable[..., nn.Module] = self.module().PretrainVisionTransformer
        known = inspect.signature(build).parameters
        options: dict[str, Any] = {
            "img_size": config.image_size,
            "patch_size": config.patch_size,
            "tubelet_size": config.tubelet_size,
            "encoder_embed_dim": config.width,
            "encoder_depth": config.depth,
            "encoder_num_heads": config.heads,
            "decoder_num_classes": config.patch_values,
            "decoder_embed_dim": config.decoder_width,
            "decoder_depth": config.decoder_depth,
            "decoder_num_heads": config.decoder_heads,
            "mlp_ratio": config.mlp_ratio,
            "qkv_bias": True,
            "norm_layer": partial(nn.LayerNorm, eps=EPS),
            "with_cp" if "with_cp" in known else "use_checkpoint": checkpointing,
        }
        if "all_frames" in known:
            options["all_frames"] = config.frames
        elif config.frames != 16:
            raise UnavailableError(f"{self.version}'s model takes 16 frames, not {config.frames}")
        return build(**options)


class OfficialV1(Official):
    """V1's model, which takes one mask."""

    def predict(self, images: Tensor, encoder_mask: Tensor, decoder_mask: Tensor) -> Tensor:
        out: Tensor = self.call(images, encoder_mask)
        return out


def build(name: str, variant: Variant, workload: Workload, masking: Masking) -> Contender:
    """The contender, of kind "checkout".

    Raises:
        FileNotFoundError: the variant's folder is no checkout.
        UnavailableError: V1 with dual masking, where it is not fed with Masks; a shape that it
            can't have; or a model that ``accelerate`` does not take.
    """
    checkout = Checkout.at(Path(variant.checkout))
    from_frames = variant.accelerated == "all lines"
    if checkout.version == "V1" and masking != "encoder-only" and not from_frames:
        raise UnavailableError("the V1 checkout has no decoder mask")
    model = checkout.model(workload.config, checkpointing=variant.checkpointing)
    model.load_state_dict(workload.state)
    if variant.tables == "repaired":
        tables_to_device(model, "pos_embed")
    accelerate_if_asked(model, variant)
    if from_frames:
        return OfficialFromFrames(name, variant, model, workload, masking)
    kind = OfficialV1 if checkout.version == "V1" else Official
    return kind(name, variant, model, workload, masking)
