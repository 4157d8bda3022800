"""What the documents tell their readers to type."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
GUIDE = [
    f"docs/{page}"
    for page in re.findall(r"guide/[\w-]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
]
"""The pages of the guide, in the order of the navigation."""


def blocks(document: str, language: str) -> list[str]:
    text = (ROOT / document).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands(document: str) -> list[str]:
    """The command lines of its shell blocks, without comments; a trailing backslash joins lines."""
    lines = "".join(blocks(document, "shell")).replace("\\\n", " ").splitlines()
    return [line for line in (re.sub(r"\s+#.*", "", line).strip() for line in lines) if line]
