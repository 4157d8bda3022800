"""What all tests share: Triton's interpreter, golden values, tiny clips, a number of threads."""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from tests.support.durations import Durations
from tests.support.forked_server import serve_workers
from tests.support.interpreter import import_triton
from tests.support.launches import Host

import_triton()
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # no pool of processes in each process


gc.disable()  # until the tests begin


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--gpu",
        action="store_true",
        help="a GPU is expected: its absence is an error, and a skipped test a failure; implies "
        "--tell-failures",
    )
    parser.addoption(
        "--tell-failures", action="store_true", help="print a line of a failure when it happens"
    )
    told = "write how long tests took into tests/durations.json"
    parser.addoption("--record-durations", action="store_true", help=told)
    told = "which of the slow tests run: all (default), none, or a part of them, as 2/5"
    parser.addoption("--slow", default="all", help=told)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Durations())
    if config.getoption("--tell-failures") or config.getoption("--gpu"):
        config.pluginmanager.register(ToldAtOnce(config))
    if config.getoption("--gpu"):
        if not torch.cuda.is_available():
            raise pytest.UsageError("--gpu: torch sees no GPU here (videomae-fast doctor says why)")
        add_up_in_fp32()


def add_up_in_fp32() -> None:
    """A GPU's matmuls may add up parts of a sum in bf16, and multiply in TF32: not in a test."""
    matmul = torch.backends.cuda.matmul
    matmul.allow_bf16_reduced_precision_reduction = False
    matmul.allow_fp16_reduced_precision_reduction = False
    matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


class ToldAtOnce:
    """Prints a line of each failure when it happens: a run on a GPU may not come to its end."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        terminal = self._config.pluginmanager.get_plugin("terminalreporter")
        if not report.failed or terminal is None:  # processes of xdist have none: they tell it all
            return
        lines = str(report.longrepr).splitlines() or [""]
        reasons = [line.removeprefix("E").strip() for line in lines if line.startswith("E  ")]
        terminal.write_line("")
        terminal.write_line(f"FAILED NOW {report.nodeid}: {(reasons or lines[-1:])[0]}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where a GPU is expected, what a GPU adds nothing to is left out: its minutes are few."""
    if not config.getoption("--gpu"):
        return
    left_out = [item for item in items if item.get_closest_marker("without_gpu")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    """What was imported and collected stays to the end: the collector of cycles, which took a
    quarter of many tests' time, need not go through it again and again, and what compiling makes
    it goes through more seldom. One thread per process, before fixtures of modules and sessions,
    too: they are made before a test's own. Loader processes come from a fork, which has imported
    what they need; a GPU may not be used in one."""
    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()
    if not session.config.getoption("--gpu"):
        serve_workers()
    gc.set_threshold(10_000, 20, 10)
    gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and item.config.getoption("--gpu") and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, where a GPU is expected: {report.longrepr}"
    return report


GOLDEN = Path(__file__).parent / "golden"


def _settings() -> dict[str, object]:
    """What a test can leave behind in its process, and what changes other tests: their last digits,
    or their time."""
    return {
        "threads": torch.get_num_threads(),
        "default dtype": torch.get_default_dtype(),
        "gradients": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "precision of matmuls": torch.get_float32_matmul_precision(),
        "oneDNN": torch.backends.mkldnn.enabled,
        "Triton's interpreter": os.environ.get("TRITON_INTERPRET"),
        "scheduling policy": os.sched_getscheduler(0),
    }


@pytest.fixture(autouse=True)
def _own_settings() -> Generator[None, None, None]:
    """One thread per test process, since the suite runs in parallel; and nothing is left behind."""
    torch.set_num_threads(1)
    before = _settings()
    yield
    left = {k: v for k, v in _settings().items() if v != before[k]}
    assert not left, f"the test leaves other settings behind: {left}"


@pytest.fixture(scope="session")
def host() -> Iterator[Host]:
    """Starts runs of several processes; nothing is imported for it until it starts one."""
    with Host() as started:
        yield started


class Golden:
    """A file of values computed with the official code."""

    def __init__(self, name: str, device: str = "cpu") -> None:
        with safe_open(GOLDEN / f"{name}.safetensors", "pt", device=device) as file:
            self.tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            self.metadata: dict[str, str] = file.metadata() or {}

    def __getitem__(self, key: str) -> torch.Tensor:
        return self.tensors[key]

    def get(self, key: str) -> torch.Tensor | None:
        return self.tensors.get(key)

    def under(self, prefix: str) -> dict[str, torch.Tensor]:
        """The tensors below a prefix, without it."""
        return {
            key.removeprefix(prefix): value
            for key, value in self.tensors.items()
            if key.startswith(prefix)
        }

    @property
    def shape(self) -> dict[str, Any]:
        """The fields of MAEConfig."""
        raw = json.loads(self.metadata["config"])
        return {
            "image_size": raw["img"],
            "patch_size": raw["patch"],
            "frames": raw["frames"],
            "width": raw["dim"],
            "depth": raw["depth"],
            "heads": raw["heads"],
            "mlp_ratio": raw.get("mlp", 4.0),
            "decoder_width": raw["ddim"],
            "decoder_depth": raw["ddepth"],
            "decoder_heads": raw["dheads"],
        }


@pytest.fixture
def golden() -> type[Golden]:
    return Golden


@pytest.fixture
def random_frames() -> Any:
    """A function (batch, frames, height, width, seed=0) -> uint8 [B, T, H, W, 3]."""

    def make(batch: int, frames: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        shape = (batch, frames, height, width, 3)
        return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)

    return make
