"""Checks what is inside the built archives. Run by .ci/run, which builds them."""

from __future__ import annotations

import argparse
import subprocess
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


LICENCES = ("LICENSE", "NOTICE")


def tracked(*patterns: str) -> set[str]:
    """The tracked files under these paths, as in the tree."""
    command = ["git", "ls-files", "--", *patterns]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return set(listed.stdout.splitlines())


def expected_package_files() -> set[str]:
    package = tracked("videomae_fast") - {"videomae_fast/kernels"}
    return package | {f"videomae_fast/{name}" for name in tracked("kernels")}


def check_wheel(path: Path, *, native: bool) -> None:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    doubled = {name for name in names if names.count(name) > 1}
    assert not doubled, f"{path.name} holds files twice: {doubled}"
    missing = expected_package_files() - set(names)
    assert not missing, f"{path.name} lacks {sorted(missing)}"
    outside = {name.split("/")[0] for name in names} - {"videomae_fast"}
    assert all(name.endswith(".dist-info") for name in outside), f"{path.name} also has {outside}"
    told = {name.rsplit("/", 1)[1] for name in names if ".dist-info/licenses/" in name} - {""}
    assert told == set(LICENCES), f"{path.name} tells {sorted(told)} of its licences"
    libraries = [name for name in names if name.endswith((".so", ".dylib"))]
    assert len(libraries) == int(native), f"{path.name} has libraries {libraries}"
    tag = path.stem.split("-", 2)[2]
    assert tag.startswith("py3-none-"), f"{path.name} is bound to a Python version"
    assert tag.endswith("-any") != native, f"{path.name} has the wrong platform tag"


def check_sdist(path: Path) -> None:
    with tarfile.open(path) as archive:
        names = [member.name.split("/", 1)[1] for member in archive if member.isfile()]
    needed = expected_package_files() | tracked("csrc", "pyproject.toml", "README.md", *LICENCES)
    missing = needed - set(names)
    assert not missing, f"{path.name} lacks {sorted(missing)}"
    twice = [name for name in names if name.startswith("kernels/")]
    assert not twice, f"{path.name} holds the kernels a second time: {twice}"
    assert len(names) == len(set(names)), f"{path.name} holds files twice"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sdist", type=Path, required=True)
    parser.add_argument("--native", type=Path, nargs="+", required=True)
    parser.add_argument("--pure", type=Path, required=True)
    args = parser.parse_args()
    check_sdist(args.sdist)
    for wheel in args.native:
        check_wheel(wheel, native=True)
    check_wheel(args.pure, native=False)
    print(f"{args.sdist.name} and {len(args.native) + 1} wheels hold what they should")


if __name__ == "__main__":
    main()
