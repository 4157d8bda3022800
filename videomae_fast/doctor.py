"""What this machine has, which backends can serve here, and why the others can't."""

from __future__ import annotations

import importlib
import os
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from importlib import metadata
from importlib.util import find_spec
from typing import Literal

from videomae_fast.extras import install

State = Literal["ok", "missing", "broken"]


@dataclass(frozen=True)
class Check:
    """One line of the report.

    Attributes:
        state: "ok"; "missing" for what is optional and not here; "broken" for what should work and
            does not.
        detail: the version or what was found; otherwise why not, and what to do.
    """

    name: str
    state: State
    detail: str


Report = dict[str, list[Check]]

REQUIRED = ("torch", "numpy", "safetensors", "av", "pillow", "matplotlib", "einops")


@dataclass(frozen=True)
class OptionalPackage:
    """A package that some part of this one uses when it is there."""

    module: str
    distribution: str
    purpose: str
    install: str


OPTIONAL = (
    OptionalPackage("triton", "triton", "GPU kernels", "pip install triton (Linux on x86-64)"),
    OptionalPackage("decord", "decord", "video decoder", install("decord")),
    OptionalPackage("torchcodec", "torchcodec", "video decoder", install("torchcodec")),
    OptionalPackage("nvidia.dali", "nvidia-dali-cuda130", "GPU decoding", install("dali")),
    OptionalPackage("transformers", "transformers", "Hugging Face models", install("transformers")),
    OptionalPackage("tensorboard", "tensorboard", "metrics", install("tensorboard")),
    OptionalPackage("lance", "pylance", "stores of clips", install("lance")),
    OptionalPackage("obstore", "obstore", "stores in object storage", install("obstore")),
    OptionalPackage("ray", "ray", "prepare, probe and features on clusters", install("ray")),
    OptionalPackage(
        "flash_attn", "flash-attn", "comparison in benchmarks", "pip install flash-attn"
    ),
    OptionalPackage("xformers", "xformers", "comparison in benchmarks", "pip install xformers"),
    OptionalPackage(
        "amp_C",
        "apex",
        "optimizer apex, comparison in benchmarks",
        "build it from github.com/NVIDIA/apex with APEX_CPP_EXT=1 APEX_CUDA_EXT=1",
    ),
)


def examine() -> Report:
    """All checks by section. A check that fails is a line of the report, never an exception."""
    sections: dict[str, Callable[[], list[Check]]] = {
        "versions": _versions,
        "devices": _devices,
        "native library": _native_library,
        "ops on cpu": partial(_ops, "cpu"),
        "ops on cuda": partial(_ops, "cuda"),
        "sdpa": _torchs_attention,
        "optimizers": _optimizers,
        "video decoders": _decoders,
        "optional packages": _optional_packages,
    }
    report: Report = {}
    for title, section in sections.items():
        try:
            report[title] = section()
        except Exception as error:  # a doctor that dies of what it finds is of no use
            report[title] = [Check(title, "broken", f"{type(error).__name__}: {error}")]
    return report


def healthy(report: Report) -> bool:
    """Whether nothing is broken; what is optional may be missing."""
    return all(check.state != "broken" for checks in report.values() for check in checks)


def as_dict(report: Report) -> dict[str, object]:
    """The report as JSON has it."""
    sections: dict[str, object] = {
        title: [asdict(check) for check in checks] for title, checks in report.items()
    }
    return {"healthy": healthy(report), **sections}


def as_text(report: Report) -> str:
    """The report for reading."""
    signs = {"ok": "+", "missing": "-", "broken": "!"}
    lines = []
    for title, checks in report.items():
        lines.append(title)
        width = max(len(check.name) for check in checks) if checks else 0
        lines += [f"  {signs[c.state]} {c.name:<{width}}  {c.detail}" for c in checks]
        lines.append("")
    lines.append("+ works   - not here, optional   ! does not work")
    return "\n".join(lines)


def _versions() -> list[Check]:
    checks = [Check("python", "ok", f"{platform.python_version()} on {platform.platform()}")]
    for name in ("videomae-fast", *REQUIRED):
        try:
            checks.append(Check(name, "ok", metadata.version(name)))
        except metadata.PackageNotFoundError:
            what = "-e . (in its folder)" if name == "videomae-fast" else name
            checks.append(Check(name, "broken", f"not installed: pip install {what}"))
    return checks


def _devices() -> list[Check]:
    import torch

    level = torch.backends.cpu.get_cpu_capability()
    threads = f"{torch.get_num_threads()} threads of {os.cpu_count()} logical cores"
    checks = [Check("cpu", "ok", f"{_processor()}; torch uses {level}, {threads}")]
    if torch.version.cuda is None:
        return [*checks, Check("cuda", "missing", "this torch is built without CUDA")]
    if not torch.cuda.is_available():
        why = f"torch is built for CUDA {torch.version.cuda}, but finds no driver or no device"
        return [*checks, Check("cuda", "missing", why)]
    for i in range(torch.cuda.device_count()):
        p = torch.cuda.get_device_properties(i)
        detail = (
            f"{p.name}, sm_{p.major}{p.minor}, {p.total_memory / 2**30:.0f} GiB, "
            f"{p.multi_processor_count} multiprocessors, CUDA {torch.version.cuda}"
        )
        checks.append(Check(f"cuda:{i}", "ok", detail))
    return checks


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _native_library() -> list[Check]:
    from videomae_fast.ops import _native
    from videomae_fast.ops._native.threads import openmp_of_torch

    if _native.library() is None:
        return [Check("cpu library", "missing", _native.why_missing())]
    why_own = openmp_of_torch()[1]
    whose = f"threads of its own ({why_own})" if why_own else "torch's threads"
    detail = f"uses {_native.instruction_set()} and {whose} here, {_native.library_path()}"
    return [Check("cpu library", "ok", detail)]


def _ops(device: str) -> list[Check]:
    """Each op and its backends in the order in which "auto" takes them on a kind of device."""
    import torch

    import videomae_fast.ops  # noqa: F401  (registers the ops)
    from videomae_fast.ops.registry import REGISTRY

    if device == "cuda" and not torch.cuda.is_available():
        return [Check("cuda", "missing", "no CUDA device")]
    checks = []
    for op in REGISTRY.values():
        forward = REGISTRY[op.name.removesuffix("_backward")]
        if forward is not op and any(one.composite for one in forward.backends.values()):
            checks.append(Check(op.name, "ok", f"the backend that {forward.name} took"))
            continue
        order = op.order(device)
        parts = [name if why is None else f"{name} no ({why})" for name, why in order.items()]
        told = op.policy.told(device) if op.policy is not None else None
        state: State = "ok" if None in order.values() else "broken"
        checks.append(Check(op.name, state, ", then ".join([told, *parts] if told else parts)))
    return checks


def _torchs_attention() -> list[Check]:
    """What torch's scaled_dot_product_attention may choose from on a GPU."""
    import torch

    if not torch.cuda.is_available():
        return [Check("cuda", "missing", "no CUDA device")]
    checks = []
    for name in ("flash", "cudnn", "mem_efficient", "math"):
        on = bool(getattr(torch.backends.cuda, f"{name}_sdp_enabled")())
        state: State = "ok" if on else "missing"
        checks.append(Check(f"cuda {name}", state, "on" if on else "switched off in torch"))
    return checks


def _optimizers() -> list[Check]:
    """What ``--optimizer`` may name."""
    import torch

    from videomae_fast.training.optimizer.apex_adam import why_not

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    why = why_not(device)
    return [
        Check("adamw", "ok", "torch's fused AdamW, the default"),
        Check("apex", "ok", "NVIDIA apex's FusedAdam")
        if why is None
        else Check("apex", "missing", why),
    ]


def _decoders() -> list[Check]:
    from videomae_fast.data import DECODERS

    checks = []
    for name, decoder in DECODERS.items():
        why = decoder.why_not()
        state: State = "ok" if why is None else "broken" if name == "pyav" else "missing"
        checks.append(Check(name, state, "works" if why is None else why))
    return [*checks, *_device_decoders()]


def _device_decoders() -> list[Check]:
    import torch

    from videomae_fast.data.device.decoders import device_decoder_kinds

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    checks = []
    for name, kind in device_decoder_kinds().items():
        why = kind.why_not(device)
        told = f"works on {device}: {', '.join(sorted(kind.codecs(device)))}"
        checks.append(
            Check(f"{name} (device)", "missing" if why else "ok", told if why is None else why)
        )
    return checks


def _optional_packages() -> list[Check]:
    return [_optional(package) for package in OPTIONAL]


def _optional(package: OptionalPackage) -> Check:
    """Imports the package: one that is installed may still not load (a library, another torch)."""
    try:
        found = find_spec(package.module) is not None
    except ModuleNotFoundError:  # the parent of a dotted name is not there
        found = False
    if not found:
        detail = f"for {package.purpose}: not installed; {package.install}"
        return Check(package.module, "missing", detail)
    try:
        importlib.import_module(package.module)
    except Exception as error:  # whatever a foreign package does on import
        reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        return Check(package.module, "broken", f"installed but does not import: {reason}")
    try:
        version = metadata.version(package.distribution)
    except metadata.PackageNotFoundError:
        version = "version unknown"
    return Check(package.module, "ok", f"{version}, for {package.purpose}")
