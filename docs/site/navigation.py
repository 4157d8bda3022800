"""Parts of the navigation that follow from what is there: a page per kernel, a page per module."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig

from docs.site.api import ROOT, place, public_names


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Puts pages where mkdocs.yml names their folder."""
    kernels = sorted((ROOT / "docs" / "kernels").glob("*.md"))
    modules = map(place, public_names())
    folders = {
        "kernels/": [{page.stem: f"kernels/{page.name}"} for page in kernels],
        "reference/api/": [{PurePath(path).stem: path} for path in modules],
    }
    config.nav = filled(config.nav, folders)
    return config


def filled(nav: Any, folders: dict[str, list[dict[str, str]]]) -> Any:
    """The navigation with lists in the place of folders.

    Args:
        nav: as mkdocs.yml has it: lists, titles and paths.
        folders: the pages of each.
    """
    if isinstance(nav, list):
        return [filled(one, folders) for one in nav]
    if isinstance(nav, dict):
        return {title: filled(one, folders) for title, one in nav.items()}
    return folders.get(nav, nav)
