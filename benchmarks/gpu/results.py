"""What a session leaves: a page, the same for programs, and one archive; whole at any time."""

from __future__ import annotations

import io
import tarfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

from benchmarks.common.record import write

TOLD = 60  # lines of a part's output in the summary
LARGEST = 15 * 2**20  # bytes of the archive; more may not come back from where it was made
FILES = ("summary.md", "gpu-first.json", "results.tar.gz")


def tested(path: Path) -> dict[str, Any] | None:
    """What a file of pytest's results says: counts, and what failed, with the reason."""
    try:
        root = ElementTree.parse(path).getroot()
    except (OSError, ElementTree.ParseError):  # not there (yet), or not whole
        return None
    found = {"passed": 0, "failed": 0, "skipped": 0, "seconds": 0.0}
    failures = []
    for case in root.iter("testcase"):
        outcome = "passed"
        for kind in ("failure", "error", "skipped"):
            problem = case.find(kind)
            if problem is not None:
                outcome = "skipped" if kind == "skipped" else "failed"
                if outcome == "failed":
                    name = f"{case.get('classname', '')}.{case.get('name', '')}"
                    told = (problem.get("message") or "").splitlines() or [""]
                    failures.append(f"{name}: {told[0]}")
                break
        found[outcome] += 1
        found["seconds"] += float(case.get("time", 0.0))
    return {**found, "failures": failures}


def summary(record: dict[str, Any], told: int = TOLD) -> str:
    """A page of markdown, with so many lines of the end of each part's output."""
    card = record["card"]
    names = ("sm_MHz", "max_sm_MHz", "memory_MHz", "power_limit_W", "temperature_C", "unknown")
    found = ", ".join(f"{name} {card[name]}" for name in names if name in card)
    lines = [
        f"# {card.get('name', record['device'])}, {record['date'][:10]}, commit "
        f"{record['commit']} (from {record['commit_from']})",
        "",
        f"As found: {found or 'no card'}; torch {record['versions']['torch']}, triton "
        f"{record['versions']['triton']}.",
        "",
        "| part | outcome | seconds | limit |",
        "|-|-|-:|-:|",
        *(
            f"| {part['name']} | {part['outcome']} | {part['seconds']:.0f} | {part['limit']:.0f} |"
            for part in record["parts"]
        ),
    ]
    for part in record["parts"]:
        if part["tests"] is not None:
            counts = part["tests"]
            lines += [
                "",
                f"{part['name']}: {counts['passed']} passed, {counts['failed']} failed, "
                f"{counts['skipped']} skipped",
                *(f"* {failure}" for failure in counts["failures"][:TOLD]),
            ]
    if record["left_out"]:
        lines += ["", f"Not in the archive, too large: {', '.join(record['left_out'])}"]
    for part in record["parts"]:
        if part["told"]:
            lines += ["", f"## {part['name']}: {part['outcome']}", ""]
            lines += ["```", *part["told"][-told:], "```"]
    return "\n".join(lines)


def keep(record: dict[str, Any], folder: Path, out: Path) -> None:
    """Writes the files from what there is in the parts' folder; each is whole at any time."""
    out.mkdir(parents=True, exist_ok=True)
    packed, record["left_out"] = archived(folder)
    write(record, out / "gpu-first.json.partial").replace(out / "gpu-first.json")
    for name, content in (
        ("summary.md", (summary(record) + "\n").encode()),
        ("results.tar.gz", packed),
    ):
        partial = out / f"{name}.partial"
        partial.write_bytes(content)
        partial.replace(out / name)


def archived(folder: Path, largest: int = LARGEST) -> tuple[bytes, list[str]]:
    """All files of a folder, packed; without the largest ones where it would be too large."""
    files = [path for path in folder.rglob("*") if path.is_file() and "build" not in path.parts]
    files.sort(key=lambda path: path.stat().st_size)
    left_out: list[str] = []
    while True:
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            for path in sorted(files):
                archive.add(path, arcname=f"results/{path.relative_to(folder)}")
        if packed.tell() <= largest or not files:
            return packed.getvalue(), left_out
        left_out.append(str(files.pop().relative_to(folder)))
