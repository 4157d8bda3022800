"""Packages for a machine with a GPU and no package index: fetched here, installed there.

    python -m benchmarks wheels fetch reading flash-attn-4 dali    # here: make gpu-wheels
    python -m benchmarks wheels install reading                    # there

What is fetched goes to the folder .wheels, which git ignores, in numbered folders of at most
50 MiB: ``.wheels/dali/1`` and so on. Each goes along with a copy of the tree, all at once or one at
a time: ``install`` puts aside what it finds (in --staging) and installs a set as soon as all of it
is there, into --to: the folder .gpu-site, which make's gpu-… targets put into PYTHONPATH. Wheels
are cut into pieces. Needs nothing but Python and pip on either side.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from email.parser import Parser
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
WHEELS = ROOT / ".wheels"
STAGING = ROOT / ".wheels-staged"
TARGET = ROOT / ".gpu-site"
MANIFEST = "manifest.json"
PIECE = 5 * 2**20  # bytes
PART = 50 * 2**20  # of a numbered folder
PYTHON = "3.12"  # of the machine


@dataclass(frozen=True)
class Wanted:
    """A set of wheels.

    Attributes:
        names: what pip is asked for; their needs are named too, since pip would bring torch.
        early: those of which there are only early versions.
        unneeded: needs that are left out on purpose.
    """

    names: tuple[str, ...]
    early: tuple[str, ...] = ()
    unneeded: tuple[str, ...] = ()


SETS = {
    # What the package and timing its ops need besides torch and triton
    "needed": Wanted(("einops>=0.8", "pytest-benchmark>=5.3", "py-cpuinfo2>=10.1")),
    "reading": Wanted(("av>=18", "decord>=0.6")),
    "flash-attn-4": Wanted(
        (
            "nvidia-cutlass-dsl", "nvidia-cutlass-dsl-libs-base", "nvidia-cutlass-dsl-libs-core",
            "nvidia-cutlass-dsl-libs-cu13", "apache-tvm-ffi>=0.1.11,<0.2", "torch-c-dlpack-ext",
            "quack-kernels>=0.5.3", "einops",
        ),
        early=("flash-attn-4>=4.0.0b30",),
        unneeded=("nvidia-cutlass-dsl-libs-cu12",),
    ),
    "dali": Wanted(
        (
            "nvidia-dali-cuda130>=2.4", "astunparse>=1.6,<=1.6.3", "gast<=0.7", "six<=1.17",
            "optree", "nvtx", "makefun", "libcst>=1.8,<2",
        ),
        # For pictures, compressed arrays and building: videos are decoded without them
        unneeded=("nvidia-nvimgcodec-cu13", "nvidia-libnvcomp-cu13", "wheel"),
    ),
}  # fmt: skip


class WheelError(RuntimeError):
    """Wheels that are not all there, damaged, or not to be had."""


def fetch(name: str, folder: Path = WHEELS) -> list[Path]:
    """Downloads a set and lays it out in numbered folders.

    Returns:
        The folders.

    Raises:
        WheelError: pip could not bring it, or a wheel needs what is neither in the set nor expected
            on the machine.
    """
    wanted = SETS[name]
    with tempfile.TemporaryDirectory() as scratch:
        for names, options in ((wanted.names, ()), (wanted.early, ("--pre",))):
            if names:
                _download(names, options, Path(scratch))
        wheels = sorted(Path(scratch).glob("*.whl"))
        needs = sorted(_needs(wheels) - {_plain(n) for n in wanted.unneeded})
        return lay_out(name, wheels, needs, folder)


def _download(names: Sequence[str], options: Sequence[str], folder: Path) -> None:
    platforms = [f"manylinux_2_{minor}_x86_64" for minor in range(39, 4, -1)]
    platforms += ["manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64", "any"]
    command = [
        sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--quiet",
        "--no-deps", "--only-binary=:all:", "--python-version", PYTHON, "--implementation", "cp",
        *(word for abi in ("cp312", "abi3", "none") for word in ("--abi", abi)),
        *(word for platform in platforms for word in ("--platform", platform)),
        *options, "--dest", str(folder), *names,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise WheelError(f"pip download {' '.join(names)}: {done.stderr.strip()[-2000:]}")


def lay_out(name: str, wheels: Sequence[Path], needs: Sequence[str], folder: Path) -> list[Path]:
    """Cuts wheels into pieces and puts these into numbered folders, each with the manifest."""
    parts: list[list[tuple[str, bytes]]] = []
    rows = []
    pieces = []
    for wheel in wheels:
        content = wheel.read_bytes()
        cut = [content[i : i + PIECE] for i in range(0, len(content), PIECE)]
        names = [wheel.name] if len(cut) == 1 else [f"{wheel.name}.{i}" for i in range(len(cut))]
        rows.append({"wheel": wheel.name, "sha256": _digest(content), "pieces": names})
        pieces += list(zip(names, cut, strict=True))
    for piece in sorted(pieces, key=lambda piece: -len(piece[1])):
        for part in parts:
            if sum(len(content) for _, content in part) + len(piece[1]) <= PART:
                part.append(piece)
                break
        else:
            parts.append([piece])
    where = folder / name
    shutil.rmtree(where, ignore_errors=True)
    found = []
    for number, part in enumerate(parts, 1):
        path = where / str(number)
        path.mkdir(parents=True)
        for piece_name, content in part:
            (path / piece_name).write_bytes(content)
        told = {"set": name, "parts": len(parts), "wheels": rows, "needs": list(needs)}
        (path / MANIFEST).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
        found.append(path)
    return found


def stage(name: str, folder: Path, staging: Path) -> dict[str, Any]:
    """Puts aside the pieces that came with this tree; the manifest.

    Raises:
        WheelError: none came, and none was put aside before; or they are of two downloads.
    """
    there = staging / name
    there.mkdir(parents=True, exist_ok=True)
    manifests = {path.read_text(encoding="utf-8") for path in folder.glob(f"{name}/*/{MANIFEST}")}
    if (there / MANIFEST).exists():
        manifests.add((there / MANIFEST).read_text(encoding="utf-8"))
    if len(manifests) > 1:
        raise WheelError(f"the parts of {name} are of different downloads: remove {there}")
    if not manifests:
        raise WheelError(f"no part of {name} in {folder.name} (fetch it where there is an index)")
    for path in sorted(folder.glob(f"{name}/*/*")):
        if not (there / path.name).exists():
            shutil.copyfile(path, there / f"{path.name}.copying")
            (there / f"{path.name}.copying").replace(there / path.name)
    told: dict[str, Any] = json.loads(manifests.pop())
    return told


def install(name: str, folder: Path, staging: Path, target: Path) -> list[str]:
    """Installs a set from its parts, once all of them came.

    Returns:
        The pieces that are missing still; nothing is installed then.

    Raises:
        WheelError: a wheel is damaged, pip refuses one, or the machine lacks what they need.
    """
    told = stage(name, folder, staging)
    there = staging / name
    missing = [p for row in told["wheels"] for p in row["pieces"] if not (there / p).exists()]
    if missing:
        return missing
    target.mkdir(parents=True, exist_ok=True)
    lacking = [need for need in told["needs"] if not _present(need, target)]
    if lacking:
        raise WheelError(f"{name} needs {', '.join(lacking)}, which this machine lacks")
    with tempfile.TemporaryDirectory() as scratch:
        wheels = []
        for row in told["wheels"]:
            content = b"".join((there / piece).read_bytes() for piece in row["pieces"])
            if _digest(content) != row["sha256"]:
                raise WheelError(f"{row['wheel']} is damaged: fetch {name} again")
            wheels.append(Path(scratch) / row["wheel"])
            wheels[-1].write_bytes(content)
        command = [
            sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
            "--no-index", "--no-deps", "--no-compile", "--no-cache-dir", "--upgrade",
            "--target", str(target), *map(str, wheels),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise WheelError(f"pip: {done.stderr.strip()[-2000:]}")
    _open(target)
    return []


def _open(target: Path) -> None:
    """Makes of a folder in PYTHONPATH what Python makes of an environment's own."""
    if any(target.glob("*.pth")):  # where the CUTLASS DSL says that its modules are elsewhere
        told = "import os, site\n\nsite.addsitedir(os.path.dirname(os.path.abspath(__file__)))\n"
        (target / "sitecustomize.py").write_text(told, encoding="utf-8")
    path = target / "nvidia"
    if path.is_dir() and not (path / "__init__.py").exists():  # torch's own would hide it
        spread = "__path__ = __import__('pkgutil').extend_path(__path__, __name__)\n"
        (path / "__init__.py").write_text(spread, encoding="utf-8")


def _needs(wheels: Iterable[Path]) -> set[str]:
    """Names that the wheels' metadata require and the wheels are not."""
    wanted: set[str] = set()
    had: set[str] = set()
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            (path,) = (
                n for n in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", n)
            )
            told = Parser().parsestr(archive.read(path).decode())
        had.add(_plain(str(told["Name"])))
        for line in told.get_all("Requires-Dist") or []:
            requirement, _, marker = str(line).partition(";")
            if _applies(marker):
                wanted.add(_plain(re.split(r"[\s\[(<>=!~;]", requirement.strip())[0]))
    return wanted - had


def _applies(marker: str) -> bool:
    """Whether a need counts on the machine; the markers of these wheels are of two kinds."""
    if "extra" in marker:
        return False
    version = re.search(r"python_version\s*(<=|>=|==|<|>)\s*['\"]([\d.]+)['\"]", marker)
    if version is None:
        return True
    mine, other = (tuple(map(int, v.split("."))) for v in (PYTHON, version.group(2)))
    return {
        "<": mine < other, "<=": mine <= other, "==": mine == other, ">": mine > other,
        ">=": mine >= other,
    }[version.group(1)]  # fmt: skip


def _present(name: str, target: Path) -> bool:
    """Whether a distribution is installed, there or here; decord's "numpy", say."""
    places = [str(target), *sys.path]
    return any(
        _plain(str(found.metadata["Name"])) == name
        for found in metadata.distributions(path=places)
        if found.metadata["Name"]
    )


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def arguments() -> argparse.ArgumentParser:
    """The parser of ``wheels``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks wheels", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    commands = parser.add_subparsers(dest="command", required=True)
    for command, text in (("fetch", "where there is an index"), ("install", "where there is none")):
        one = commands.add_parser(command, help=text)
        one.add_argument("sets", nargs="+", choices=SETS, metavar="SET", help=", ".join(SETS))
        one.add_argument("--folder", type=Path, default=WHEELS, help="default: .wheels")
        if command == "install":
            one.add_argument("--staging", type=Path, default=STAGING, help="default: %(default)s")
            one.add_argument("--to", type=Path, default=TARGET, help="default: %(default)s")
    return parser


def main(argv: Sequence[str]) -> int:
    """Fetches or installs the sets.

    Returns:
        1 where a set can't be had or installed, 3 where parts of one are still missing.
    """
    args = arguments().parse_args(argv)
    waiting = False
    try:
        for name in args.sets:
            if args.command == "fetch":
                for path in fetch(name, args.folder):
                    size = sum(file.stat().st_size for file in path.iterdir()) / 2**20
                    print(f"{path.relative_to(args.folder.parent)}: {size:.1f} MiB")
                told = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
                print(
                    "  "
                    + ", ".join(" ".join(row["wheel"].split("-")[:2]) for row in told["wheels"])
                )
                print(f"  expected on the machine: {', '.join(told['needs']) or 'nothing'}")
                continue
            missing = install(name, args.folder, args.staging, args.to)
            waiting = waiting or bool(missing)
            print(
                f"{name}: put aside; still missing: {', '.join(missing)}"
                if missing
                else f"{name}: installed; export PYTHONPATH={args.to}"
            )
    except WheelError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 3 if waiting else 0
