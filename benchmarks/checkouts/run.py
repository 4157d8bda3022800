"""Runs what other people's code does with these models, as it is and with the two lines.

    git clone https://github.com/MCG-NJU/VideoMAE
    git clone https://github.com/OpenGVLab/VideoMAEv2
    python -m benchmarks checkouts --official-v1 VideoMAE --official-v2 VideoMAEv2

Each check ends in a row: "equal", "refused" (with the sentence), "FAILED" or "not run". The models
are tiny and the videos generated; everything else is the checkouts' own, V2's compiler included.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from benchmarks.checkouts import forks, hugging_face, packages, saving, scripts
from benchmarks.checkouts.rows import Row, table
from benchmarks.common.command import command_of, parser_of, results_folder
from benchmarks.common.commit import git_commit
from benchmarks.common.record import environment, stamp, write

Check = Callable[[], Row]
PARTS = ("pre-training", "fine-tuning", "features", "saving", "forks", "transformers")


def arguments() -> argparse.ArgumentParser:
    """The parser of ``checkouts``."""
    found = parser_of("checkouts", __doc__)
    for name, what in {
        "official-v1": "MCG-NJU/VideoMAE", "official-v2": "OpenGVLab/VideoMAEv2",
        "ava": "MCG-NJU/VideoMAE-Action-Detection", "adaptformer": "ShoufaChen/AdaptFormer",
        "transformers": "huggingface/transformers, of the version that is installed",
    }.items():  # fmt: skip
        found.add_argument(f"--{name}", type=Path, metavar="PATH", help=f"a checkout of {what}")
    found.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="default: all")
    found.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: cpu")
    found.add_argument(
        "--keep", type=Path, metavar="FOLDER",
        help="where videos, checkpoints and what the scripts print are kept; default: nowhere",
    )  # fmt: skip
    return found


def checks(args: argparse.Namespace, folder: Path) -> Iterator[tuple[str, Check]]:
    """(part, check) of everything that the given checkouts allow, quick ones first."""
    v1, v2 = args.official_v1, args.official_v2
    for path in filter(None, (v1, v2)):
        yield "saving", partial(saving.official, path, folder)
    yield "saving", partial(saving.hugging_face, folder)
    for kind in ("ava", "adaptformer"):
        if getattr(args, kind):
            yield "forks", partial(forks.row, kind, getattr(args, kind), folder)
    if v1 or v2:
        yield from _scripts(v1, v2, scripts.Material.made(folder), args.device)
    if args.transformers:
        of_tests = partial(hugging_face.row, args.transformers, folder / "transformers")
        for dropout in (False, True):
            yield "transformers", partial(of_tests, dropout=dropout)


def _scripts(
    v1: Path | None, v2: Path | None, material: scripts.Material, device: str
) -> Iterator[tuple[str, Check]]:
    if v2:
        yield "features", partial(scripts.tad, v2, material, device)
        for rate in (0.0, 0.1):
            yield "fine-tuning", partial(scripts.fine_tuning, v2, material, device, drop_path=rate)
    given: tuple[tuple[Literal["V1", "V2"], Path | None], ...] = (("V1", v1), ("V2", v2))
    for version, path in given:
        if path:
            of_version = partial(scripts.pretraining, version, path, material, device)
            for rate, later in ((0.0, False), (0.1, False), (0.1, True)):
                yield "pre-training", partial(of_version, drop_path=rate, later_timm=later)


def run(args: argparse.Namespace, folder: Path) -> list[Row]:
    """Runs the checks and tells each row as it ends."""
    rows = []
    for part, check in checks(args, folder):
        if part in args.parts:
            start = time.monotonic()
            rows.append(check())
            print(f"{rows[-1]} ({time.monotonic() - start:.0f} s)", flush=True)
    return rows


def main(argv: Sequence[str]) -> int:
    """Runs the checks, and writes record and table.

    Returns:
        1 where one failed.
    """
    parser = arguments()
    args = parser.parse_args(argv)
    paths = {
        name: path.resolve()
        for name in ("official_v1", "official_v2", "ava", "adaptformer", "transformers")
        if (path := getattr(args, name)) is not None
    }
    for name, path in paths.items():
        if not path.is_dir():
            parser.error(f"--{name.replace('_', '-')}: {path} is no folder")
        setattr(args, name, path)
    absent = packages.missing()
    if absent and (args.official_v1 or args.official_v2):
        parser.error(f"not installed: {' '.join(absent)}; pip install '.[checkouts]'")
    with tempfile.TemporaryDirectory(prefix="checkouts-") as temporary:
        folder = (args.keep or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        rows = run(args, folder)
    record = {
        "study": "checkouts",
        **environment(args.device, command_of("checkouts", argv)),
        "checkouts": {name: {"commit": git_commit(path)} for name, path in paths.items()},
        "rows": [vars(row) for row in rows],
    }
    path = write(record, results_folder(args) / f"checkouts-{args.device}-{stamp()}.json")
    path.with_suffix(".md").write_text(table(rows) + "\n", encoding="utf-8")
    print(f"{table(rows)}\n{path}")
    return int(any(row.ending == "FAILED" for row in rows))
