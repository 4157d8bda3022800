"""Damages inputs at random; prints whatever was neither read right nor refused in a sentence.

``python -m tests.fuzz`` runs every target at its full count (``make fuzz``); ``--share 0.01`` a
hundredth of it. A target is a module of this folder with ``FULL``, its full number of cases, and
``run(count, seed, folder)``, which yields one line for each finding.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
import time
from pathlib import Path

TARGETS = ("videos", "pictures", "lists", "boxes", "stores", "weights", "checkpoints")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", default=TARGETS, help=f"of {', '.join(TARGETS)}")
    parser.add_argument("--share", type=float, default=1.0, help="of each target's full count")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    found = 0
    for name in options.targets:
        target = importlib.import_module(f"tests.fuzz.{name}")
        count = max(1, round(target.FULL * options.share))
        start = time.monotonic()
        with tempfile.TemporaryDirectory(prefix=f"fuzz-{name}-") as folder:
            findings = list(target.run(count, options.seed, Path(folder)))
        for line in findings:
            print(f"{name}: {line}")
        print(f"{name}: {count} cases, {len(findings)} findings, {time.monotonic() - start:.0f} s")
        found += len(findings)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
