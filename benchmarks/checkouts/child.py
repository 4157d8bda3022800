"""Runs one official script in a process of its own, as it is or with its model accelerated.

    python -m benchmarks.checkouts.child JOB.json RESULT.json

The script's module is imported from the checkout and its ``main`` called with a command line. The
two lines are put where a user puts them: after the function that makes the model.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.checkouts import packages, training_packages
from videomae_fast import accelerate
from videomae_fast.errors import AccelerationError


@dataclass(frozen=True)
class Job:
    """What to run.

    Attributes:
        checkout: folder of the official code.
        script: its module, such as "run_mae_pretraining".
        words: its command line.
        makes_model: the name in the script of the function that makes the model.
        accelerated: whether the two lines are there.
        device: "cpu" or "cuda".
        sizes: other sizes of the models, {class: {argument: value}}; empty: the official ones.
        saves_model: where the first state dict of the model is kept, for scripts that load one.
        eager_draws: the compiler draws random numbers as eager code does.
        later_timm: drop path draws as timm does since 0.5, not as 0.4.12.
    """

    checkout: str
    script: str
    words: list[str]
    makes_model: str
    accelerated: bool
    device: str = "cpu"
    sizes: dict[str, dict[str, Any]] = field(default_factory=dict)
    saves_model: str = ""
    eager_draws: bool = False
    later_timm: bool = False


@dataclass
class Result:
    """What a run left.

    Attributes:
        losses: of each step, in order, validation's and test's too.
        refused: the sentence of AccelerationError.
        report: what `accelerate` replaced.
        stand_ins: packages with a stand-in.
    """

    losses: list[float] = field(default_factory=list)
    refused: str | None = None
    report: str = ""
    stand_ins: list[str] = field(default_factory=list)


def run(job: Job) -> Result:
    """Runs the script to its end."""
    result = Result(stand_ins=packages.install(job.device, later_timm=job.later_timm))
    os.chdir(job.checkout)
    sys.path.insert(0, job.checkout)
    sys.argv = [f"{job.script}.py", *job.words]
    if job.eager_draws:
        config: Any = importlib.import_module("torch._inductor.config")
        config.fallback_random = True
    script: Any = importlib.import_module(job.script)
    training_packages.shrink(job.sizes)
    setattr(script, job.makes_model, _made(getattr(script, job.makes_model), job, result))
    if hasattr(script, "utils"):
        _listen(script.utils, result)
    try:
        _call(script)
    except AccelerationError as error:
        result.refused = str(error)
    return result


def _made(make: Callable[..., Any], job: Job, result: Result) -> Callable[..., Any]:
    """The function that makes the model, with the two lines after it."""

    def made(*args: Any, **settings: Any) -> Any:
        model = make(*args, **settings)
        if job.saves_model:
            with torch.no_grad():
                for parameter in model.parameters():  # classes begin all alike
                    parameter.add_(0.02 * torch.randn_like(parameter))
            torch.save({"module": model.state_dict()}, job.saves_model)
        if job.accelerated:
            result.report = str(accelerate(model))
        return model

    return made


def _listen(utils: Any, result: Result) -> None:
    """Keeps each loss that the script's own meters get."""
    update = utils.MetricLogger.update

    def listening(self: Any, **values: Any) -> None:
        if "loss" in values:
            result.losses.append(float(values["loss"]))
        update(self, **values)

    utils.MetricLogger.update = listening


def _call(script: Any) -> None:
    args = script.get_args()
    if hasattr(script, "extract_feature"):
        script.extract_feature(args)
        return
    options = args if isinstance(args, tuple) else (args,)
    Path(options[0].output_dir).mkdir(parents=True, exist_ok=True)
    script.main(*options)


def main(words: list[str]) -> int:
    """Runs the job in the first file, and writes what it gives into the second, as JSON."""
    torch.set_num_threads(2)
    torch.manual_seed(0)  # extract_tad_feature.py sets no seed
    np.random.seed(0)
    random.seed(0)
    job = Job(**json.loads(Path(words[0]).read_text(encoding="utf-8")))
    result = run(job)
    Path(words[1]).write_text(json.dumps(asdict(result)), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
