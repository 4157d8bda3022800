"""Forks made the way forks come about: the source of the official structure with lines changed."""

from __future__ import annotations

import copy
import importlib.util
import itertools
import sys
import tempfile
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from tests.support import stand_ins
from tests.support.official_models import randomise

SIZE: dict[str, Any] = {"all_frames": 4, "decoder_depth": 1, "heads": 2, "decoder_heads": 2}
_numbers = itertools.count()


@dataclass(frozen=True)
class Fork:
    """A changed source.

    Attributes:
        edits: (text of the official structure, what stands there instead).
        settings: arguments of the model.
        zero: parameters, by the end of their name, that begin as zero, as adapters do: the fork
            computes the original function until it is trained.
        classifier: the model is the classifier, not the one for pre-training.
    """

    edits: tuple[tuple[str, str], ...]
    settings: dict[str, Any] = field(default_factory=dict)
    zero: tuple[str, ...] = ()
    classifier: bool = False

    def model(self, module: ModuleType) -> nn.Module:
        """The fork's model, from a module that :meth:`module` or :func:`fresh` made."""
        model = model_of(module, self.classifier, **self.settings)
        for name, parameter in model.named_parameters():
            if name.endswith(self.zero):
                parameter.data.zero_()
        return model

    def module(self) -> ModuleType:
        """The changed source, imported.

        Raises:
            AssertionError: the text of an edit is not in the source.
        """
        text = source()
        for old, new in self.edits:
            assert old in text, f"not in the stand-in's source: {old!r}"
            text = text.replace(old, new)
        return imported(text)


def fork(*edits: tuple[str, str], **changed: Any) -> Fork:
    """A fork by its edits; see :class:`Fork`."""
    return Fork(edits, **changed)


def also(line: str, *more: str) -> tuple[str, str]:
    """An edit that leaves a line of `__init__` and adds some after it."""
    return line, line + "".join(f"        {one}\n" for one in more)


def lines(*them: str) -> str:
    """Lines of a method, the first where another began."""
    return "\n        ".join(them)


def model_of(module: ModuleType, classifier: bool, **settings: Any) -> nn.Module:
    """A tiny model of the stand-in's classes, random in every parameter."""
    sizes = {**SIZE, **settings}
    if classifier:
        sizes = {k: v for k, v in sizes.items() if not k.startswith("decoder")}
    build = module.VisionTransformer if classifier else module.PretrainVisionTransformer
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return randomise(build(**sizes))


@cache
def source() -> str:
    return Path(stand_ins.__file__).read_text()


def fresh() -> ModuleType:
    """The official structure as it is, in classes of its own, which a test may change."""
    return imported(source())


def imported(text: str) -> ModuleType:
    """A module of its own file, so that its source can be looked up and its classes pickled."""
    name = f"official_structure_{next(_numbers)}"
    path = Path(_folder(), f"{name}.py")
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@cache
def _folder() -> str:
    folder = tempfile.TemporaryDirectory(prefix="forks-")
    _kept.append(folder)  # until the process ends
    return folder.name


_kept: list[tempfile.TemporaryDirectory[str]] = []


def adopt(model: nn.Module, forked: nn.Module) -> None:
    """Turns a plain model into the fork: its classes get the fork's functions, as on reloading.

    Modules, parameters and other attributes that the fork has and the model lacks are added.
    """
    forked = copy.deepcopy(forked)
    for path, theirs in forked.named_modules():
        try:
            ours = model.get_submodule(path)
        except AttributeError:
            continue  # came with its parent
        for name, value in vars(theirs).items():
            if name in ("_modules", "_parameters", "_buffers"):
                held = vars(ours)[name]
                held.update({key: one for key, one in value.items() if key not in held})
            elif name not in vars(ours):
                setattr(ours, name, value)
    for name, theirs in vars(sys.modules[type(forked).__module__]).items():
        ours = vars(sys.modules[type(model).__module__]).get(name)
        if not isinstance(theirs, type) or not isinstance(ours, type) or ours is theirs:
            continue
        for attribute, value in vars(theirs).items():
            if callable(value) and attribute != "__init__":
                setattr(ours, attribute, value)
