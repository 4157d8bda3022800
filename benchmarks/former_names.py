"""Benchmarks as modules to run (``benchmarks.step``), as they were before there was one command.

For one version: they run the command of today, after a warning.
"""

from __future__ import annotations

import runpy
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

# Command of today by the name of the module that was run
FORMER = {
    "ablation": "ablation",
    "attention_choice": "attention-choice",
    "breakdown": "breakdown",
    "ceilings": "ceilings",
    "data_speed": "reading",
    "drop_in": "drop-in",
    "gpu_first": "gpu",
    "launch_choice": "launch-choice",
    "loss_curves": "loss-curves",
    "op_speed": "ops",
    "paper": "paper",
    "plots": "plots",
    "readme": "readme",
    "sass": "machine-code",
    "step": "step",
    "tables": "report",
}
_SOURCE = "import sys\nfrom benchmarks.former_names import run\nrun({name!r}, sys.argv[1:])"


class FormerCommands(MetaPathFinder, InspectLoader):
    """Finds the modules that are no more, to be run and not to be imported."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of a former command's module; None for every other name."""
        package, _, name = fullname.rpartition(".")
        known = package == "benchmarks" and name in FORMER
        return ModuleSpec(fullname, self, origin=__file__) if known else None

    def get_source(self, fullname: str) -> str:
        """What ``python -m`` runs in the module's place."""
        return _SOURCE.format(name=fullname.rpartition(".")[2])

    def exec_module(self, module: ModuleType) -> None:
        """Refuses the import.

        Raises:
            ImportError: always; it names the command.
        """
        command = FORMER[module.__name__.rpartition(".")[2]]
        raise ImportError(f"{module.__name__} is now the command: python -m benchmarks {command}")


def run(name: str, words: Sequence[str]) -> None:
    """Runs the command that the module `name` has become; it ends as that does."""
    command = FORMER[name]
    warnings.warn(
        f"python -m benchmarks.{name} is now python -m benchmarks {command}; the next version "
        "drops the former spelling",
        FutureWarning,
        stacklevel=2,
    )
    sys.argv = [sys.argv[0], command, *words]
    runpy.run_module("benchmarks", run_name="__main__", alter_sys=True)


def install() -> None:
    """Makes the former commands known, behind everything that there is."""
    sys.meta_path.append(FormerCommands())
