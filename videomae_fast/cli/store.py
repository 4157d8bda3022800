"""``videomae-fast store``: many videos in few files that training reads by row."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from videomae_fast.cli.list_options import check_list_file, usable_cpus
from videomae_fast.cli.options import add_default
from videomae_fast.errors import UsageError
from videomae_fast.recipes.source import BY_OPTION

if TYPE_CHECKING:
    from videomae_fast.data.store.filling import Filled, Filling

_GB: Final = 10**9


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True, title="actions")
    for name, summary in (
        ("import", "make a store of a list's videos, of WebDataset's tar files, or of a store"),
        ("append", "add such clips to a store, as its next version"),
    ):
        filling = actions.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        filling.add_argument("store", type=Path, metavar="STORE", help="folder of the store")
        filling.add_argument(
            "sources",
            type=Path,
            nargs="+",
            metavar="SOURCE",
            help="one list, one store, or tar files (*.tar); those that lie in STORE already stay "
            "where they are, and others are copied",
        )
        for field in ("root", "format"):
            add_default(filling, BY_OPTION[field])
        filling.add_argument(
            "--shuffle",
            type=int,
            metavar="SEED",
            help="write the clips in an order drawn from this seed, as reading in blocks needs it "
            "(default: in the list's order)",
        )
        if name == "import":
            filling.add_argument(
                "--kind",
                choices=("tar", "lance"),
                default="tar",
                help="tar files with an index, or a Lance data set, which takes the package "
                "pylance (default: tar)",
            )
        _add_tar_size(filling)
        _add_work(filling)
        filling.add_argument(
            "--time-limit",
            type=float,
            default=120.0,
            metavar="SECONDS",
            help="for one file, after which it is left out (default: 120)",
        )
    summary = "read a store as a whole: what is wrong is printed, a line each"
    verifying = actions.add_parser("verify", help=summary, description=summary, allow_abbrev=False)
    verifying.add_argument("store", type=Path, metavar="STORE", help="folder of the store")
    _add_version(verifying)
    _add_work(verifying)
    summary = "write a store's clips as tar files that WebDataset reads, with an index"
    exporting = actions.add_parser("export", help=summary, description=summary, allow_abbrev=False)
    exporting.add_argument("store", type=Path, metavar="STORE", help="folder of the store")
    exporting.add_argument("output", type=Path, metavar="DIR", help="folder to be made")
    _add_version(exporting)
    _add_tar_size(exporting)


def run(args: argparse.Namespace) -> int:
    _check(args)
    if args.action == "verify":
        return _verify(args)
    if args.action == "export":
        return _export(args)
    return _fill(args)


def _add_version(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--version", type=int, metavar="N", help="of the store (default: the newest)"
    )


def _add_tar_size(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--tar-gb",
        type=float,
        default=1.0,
        metavar="GB",
        help="after which the next tar file begins, in 10^9 bytes (default: 1)",
    )


def _add_work(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workers",
        type=int,
        default=usable_cpus(),
        metavar="N",
        help="processes that read and look at clips (default: one per usable CPU)",
    )


def _check(args: argparse.Namespace) -> None:
    """Raises UsageError for what can be seen without reading anything."""
    if getattr(args, "workers", 1) < 1:
        raise UsageError(f"--workers must be 1 or more, not {args.workers}")
    if not 0 < getattr(args, "tar_gb", 1.0) < float("inf"):
        raise UsageError(f"--tar-gb must be more than 0, not {args.tar_gb:g}")
    if not getattr(args, "time_limit", 1.0) > 0:
        raise UsageError(f"--time-limit must be more than 0, not {args.time_limit:g}")
    if (getattr(args, "shuffle", None) or 0) < 0:
        raise UsageError(f"--shuffle must be 0 or more, not {args.shuffle}")
    for source in getattr(args, "sources", ()):
        check_list_file(source, stores=True)
    root = getattr(args, "root", None)
    if root is not None and not root.is_dir():
        raise UsageError(f"--root {root}: no such folder")


def _filling(args: argparse.Namespace) -> Filling:
    from videomae_fast.data.store.filling import Filling
    from videomae_fast.progress import ProgressLine

    return Filling(
        format=getattr(args, "format", "pretrain"),
        root=getattr(args, "root", None),
        shuffle=getattr(args, "shuffle", None),
        kind=getattr(args, "kind", "tar"),
        tar_bytes=round(args.tar_gb * _GB),
        workers=getattr(args, "workers", 1),
        time_limit=getattr(args, "time_limit", 120.0),
        progress=lambda total: ProgressLine(total, "clips"),
    )


def _fill(args: argparse.Namespace) -> int:
    from videomae_fast.data.store.filling import fill_store

    done = fill_store(args.store, args.sources, _filling(args), new=args.action == "import")
    tell(args.store, done)
    return 0


def _export(args: argparse.Namespace) -> int:
    from videomae_fast.data.store.filling import export_store
    from videomae_fast.data.store.opening import open_store

    tell(
        args.output, export_store(open_store(args.store, args.version), args.output, _filling(args))
    )
    return 0


def tell(store: Path, done: Filled) -> None:
    from videomae_fast.progress import size_text

    print(f"store      {store}  (version {done.version})")
    print(f"clips      {done.rows:,}, {size_text(done.bytes)}")
    if done.known:
        print(f"left       {done.known:,} clips that the store has already")
    if done.bad:
        print(f"bad clips  {done.bad:,} are left out: {done.bad_files}")


def _verify(args: argparse.Namespace) -> int:
    from videomae_fast.data.store.opening import open_store
    from videomae_fast.data.store.verifying import verify
    from videomae_fast.progress import ProgressLine

    store = open_store(args.store, args.version)
    wrong = 0
    for line in verify(
        store, workers=args.workers, progress=lambda total: ProgressLine(total, "clips")
    ):
        wrong += 1
        print(line)
    sys.stdout.flush()
    if wrong:
        print(
            f"{store.path}: {wrong:,} things are wrong: training counts such clips as unreadable; "
            "take the files from a copy, or store the clips anew",
            file=sys.stderr,
        )
        return 1
    print(f"store      {store.path} is whole: {len(store):,} clips of version {store.version}")
    return 0
