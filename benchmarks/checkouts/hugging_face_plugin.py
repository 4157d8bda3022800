"""A plugin of pytest: every VideoMAE model of transformers is accelerated as soon as it is there.

    HF_HUB_OFFLINE=1 VIDEOMAE_FAST_PLUGIN="accelerated dropout-0" \
        pytest -p benchmarks.checkouts.hugging_face_plugin tests/models/videomae

``VIDEOMAE_FAST_PLUGIN`` may have the words "accelerated" and "dropout-0" (Hugging Face's tests
build models with dropout). The result is written to ``VIDEOMAE_FAST_RESULT``.
"""

from __future__ import annotations

import functools
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from transformers import (
    VideoMAEConfig,
    VideoMAEForPreTraining,
    VideoMAEForVideoClassification,
    VideoMAEModel,
)

from videomae_fast import accelerate
from videomae_fast.errors import AccelerationError

WORDS = ("accelerated", "dropout-0")
ASKED = os.environ.get("VIDEOMAE_FAST_PLUGIN", "").split()
KINDS: tuple[Any, ...] = (VideoMAEForPreTraining, VideoMAEForVideoClassification, VideoMAEModel)
outcomes: dict[str, str] = {}
models: Counter[str] = Counter()
sentences: set[str] = set()
_within = 0  # another model's constructor or loading


def pytest_configure(config: Any) -> None:
    unknown = set(ASKED) - set(WORDS)
    if unknown:
        raise ValueError(f"VIDEOMAE_FAST_PLUGIN knows {WORDS}, not {sorted(unknown)}")
    if "dropout-0" in ASKED:
        _without_dropout()
    for kind in KINDS if "accelerated" in ASKED else ():
        kind.__init__ = _accelerates(kind.__init__)
        kind.from_pretrained = classmethod(_loads(kind.from_pretrained.__func__))


def _without_dropout() -> None:
    init = VideoMAEConfig.__init__

    @functools.wraps(init)
    def without(self: Any, *args: Any, **settings: Any) -> None:
        init(self, *args, **settings)
        self.hidden_dropout_prob = self.attention_probs_dropout_prob = 0.0

    kind: Any = VideoMAEConfig
    kind.__init__ = without


def _accelerates(init: Any) -> Any:
    @functools.wraps(init)
    def made(self: Any, *args: Any, **settings: Any) -> None:
        global _within
        _within += 1
        try:
            init(self, *args, **settings)
        finally:
            _within -= 1
        _two_lines(self)

    return made


def _loads(from_pretrained: Any) -> Any:
    @functools.wraps(from_pretrained)
    def loaded(kind: Any, *args: Any, **settings: Any) -> Any:
        global _within
        _within += 1
        try:
            found = from_pretrained(kind, *args, **settings)
        finally:
            _within -= 1
        _two_lines(found[0] if isinstance(found, tuple) else found)
        return found

    return loaded


def _two_lines(model: Any) -> None:
    if _within or not isinstance(model, KINDS):
        return
    state = torch.get_rng_state()
    try:
        accelerate(model)
        models["accelerated"] += 1
    except AccelerationError as error:
        models["refused"] += 1
        sentences.add(str(error))
    if not torch.equal(state, torch.get_rng_state()):
        raise AssertionError("accelerate changed the state of the random numbers")


def pytest_runtest_logreport(report: Any) -> None:
    if report.when == "call" or report.outcome != "passed":
        outcomes[report.nodeid.split("::")[-1]] = report.outcome


def pytest_sessionfinish(session: Any, exitstatus: int) -> None:
    path = os.environ.get("VIDEOMAE_FAST_RESULT")
    if path:
        found = {
            "exit": int(exitstatus), "tests": outcomes, "models": dict(models),
            "refused": sorted(sentences),
        }  # fmt: skip
        Path(path).write_text(json.dumps(found), encoding="utf-8")
