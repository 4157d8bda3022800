"""What is built around a model, and what is done to it as a whole."""

from __future__ import annotations

import copy
import io
import pickle
import sys
import tempfile
import warnings
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.checkpoint import checkpoint

from tests.interop.forks.changes import Scaled, official_module, part
from tests.interop.forks.comparing import Change, Run
from tests.interop.forks.inputs import clips, mask
from tests.interop.forks.sources import model_of
from tests.interop.forks.uses import values


class Student(nn.Module):
    """A user's module that holds the model among other things."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone, self.scale = backbone, nn.Parameter(torch.ones(1))

    def forward(self, *inputs: Any) -> Any:
        return self.scale * self.backbone(*inputs)


class Recomputed(nn.Module):
    """A block that recomputes its activations, as checkpointing wrappers do."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Any) -> Any:
        return checkpoint(self.inner, x, use_reentrant=False)


class Teacher(nn.Module):
    """Two models in one, the second a frozen copy."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.student, self.teacher = model, copy.deepcopy(model).requires_grad_(False)

    def forward(self, *inputs: Any) -> Any:
        return self.student(*inputs) - 0.5 * self.teacher(*inputs)


def recomputes(model: Any) -> None:
    model.encoder.blocks = nn.ModuleList(Recomputed(block) for block in model.encoder.blocks)


def distributed(model: Any) -> nn.Module:
    return nn.parallel.DistributedDataParallel(model)


def compiled(model: Any) -> nn.Module:
    torch.compiler.reset()
    made: nn.Module = torch.compile(model, backend="eager")
    return made


def compiled_in_place(model: Any) -> None:
    torch.compiler.reset()
    model.compile(backend="eager")


def with_peft(model: Any) -> nn.Module:
    from peft import LoraConfig, get_peft_model

    with torch.random.fork_rng():
        torch.manual_seed(5)
        names = [f"blocks.{i}.{part}" for i in range(2) for part in ("attn.qkv", "mlp.fc1")]
        made: nn.Module = get_peft_model(
            model, LoraConfig(r=2, target_modules=names, init_lora_weights=False)
        )
    return made


def offloaded(model: Any) -> None:
    from accelerate import cpu_offload

    cpu_offload(model, execution_device=torch.device("cpu"))


WRAPPERS: dict[str, Change] = {
    "DataParallel": nn.DataParallel,
    "DistributedDataParallel": distributed,
    "a user's module": Student,
    "a wrapper that scales": Scaled,
    "two wrappers": lambda model: Scaled(Student(model)),
    "student and teacher": Teacher,
    "averaged weights": lambda model: AveragedModel(model),
    "checkpointing wrappers": recomputes,
    "PeftModel": with_peft,
    "cpu_offload": offloaded,
}
NEEDED = {"PeftModel": "peft", "cpu_offload": "accelerate"}


def missing(name: str) -> bool:
    """Whether a wrapper's package is not installed."""
    return name in NEEDED and find_spec(NEEDED[name]) is None


def reloaded(model: Any) -> nn.Module:
    """Through torch.save of the whole model."""
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    made: nn.Module = torch.load(file, weights_only=False)
    return made


def into_a_fresh_one(model: Any) -> nn.Module:
    """Its weights in a model that is not accelerated."""
    fresh = _plain(model)
    fresh.load_state_dict(model.state_dict())
    return fresh


def from_a_fresh_one(model: Any) -> None:
    """Other weights into the model, whose parameters they become."""
    state = {name: 0.8 * value for name, value in _plain(model).state_dict().items()}
    model.load_state_dict(state, assign=True)


def through_a_file(model: Any) -> nn.Module:
    fresh = _plain(model)
    with tempfile.TemporaryFile() as file:
        torch.save(model.state_dict(), file)
        file.seek(0)
        fresh.load_state_dict(torch.load(file, weights_only=True))
    return fresh


def _plain(model: nn.Module) -> nn.Module:
    return model_of(sys.modules[official_module(model)], classifier=False)


def through_meta(model: Any) -> None:
    """To the meta device and back, as loaders of large models do."""
    state, tables = model.state_dict(), [(m, m.pos_embed) for m in (model, model.encoder)]
    model.to("meta")
    model.to_empty(device="cpu")
    model.load_state_dict(state)
    for module, table in tables:
        module.pos_embed = table  # as any code has to that keeps tables outside its buffers


def in_bf16(model: Any) -> None:
    model.to(torch.bfloat16).to(torch.float32)


WHOLE: dict[str, Change] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "torch.save": reloaded,
    "state_dict into a fresh one": into_a_fresh_one,
    "state_dict through a file": through_a_file,
    "load_state_dict with assign": from_a_fresh_one,
    "meta and back": through_meta,
    "bf16 and back": in_bf16,
    "share_memory": lambda model: model.share_memory() and None,
    "zero weights": lambda model: [p.data.zero_() for p in model.decoder.parameters()] and None,
    "eval of the encoder": lambda model: (
        part(model, "encoder").requires_grad_(False).eval() and None
    ),
}


# Compiling takes long, so these are made for the classifier's output alone
COMPILED: dict[str, Change] = {
    "Module.compile": compiled_in_place,
    "a compiled user's module": lambda model: compiled(Student(model)),
}


def exported(model: Any) -> Any:
    return torch.export.export(model, (clips(),)).module()(clips())


def traced(model: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.trace(model, (clips(),), check_trace=False)(clips())


def quantised(model: Any, *given: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated
        small = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    with torch.no_grad():
        return small(*given)


# What is done with the classifier, and what with the pre-training model
CLASSIFIER_TOOLS: dict[str, Run] = {
    "torch.jit.trace": values(traced),
    "torch.export": values(exported),
    "dynamic quantisation": values(lambda model: quantised(model, clips())),
}
TOOLS: dict[str, Run] = {
    "dynamic quantisation": values(lambda model: quantised(model, clips(), mask()))
}
