"""Docstrings for the reference: Sphinx's roles become links, and what fields declare is said.

A field of a configuration is declared by ``option(default, text, unit=…)``: the texts are the
section "Attributes" of its class, and the default is what the signature shows. What all sections
raise is said once, here.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import MISSING, is_dataclass
from importlib import import_module
from typing import Any, Final

import griffe

from docs.site.api import PACKAGE, defined, public_names
from videomae_fast.recipes.fields import Config, Section, sections, settings_of

_RAISES: Final = """

Raises:
    SettingError: a value of another type or out of bounds, or values that contradict each other.
"""
_ROLE: Final = re.compile(r":(?:class|func|meth|mod|attr|data|exc|obj):`(~?)([^`]+)`")


class Docstrings(griffe.Extension):
    """Rewrites each docstring before it is parsed."""

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        """Called when a package was read."""
        if pkg.path == PACKAGE:
            homes = {
                f"{module}.{name}": defined(pkg, module, name)
                for module, names in public_names().items()
                for name in names
            }
            _rewrite(pkg, homes | {home: home for home in homes.values()})


def _rewrite(parent: griffe.Object, homes: dict[str, str]) -> None:
    if parent.docstring:
        parent.docstring.value = as_markdown(parent.docstring.value, parent.module.path, homes)
    if isinstance(parent, griffe.Class) and parent.path.startswith(f"{PACKAGE}.recipes."):
        _declare(parent)
    for member in parent.members.values():
        if isinstance(member, griffe.Object):
            _rewrite(member, homes)


def _declare(section: griffe.Class) -> None:
    declared = getattr(import_module(section.module.path), section.name, None)
    if not is_dataclass(declared) or not section.docstring:
        return
    settings = settings_of(declared)
    lines = [f"    {one.field}: {one.meaning}." for one in settings]
    if issubclass(declared, Config):
        for name, part in sections(declared).items():
            lines.append(f"    {name}: {(inspect.getdoc(part) or '').partition(chr(10))[0]}")
    if lines:
        section.docstring.value += "\n\nAttributes:\n" + "\n".join(lines)
    if issubclass(declared, Config | Section) and "Raises:" not in section.docstring.value:
        section.docstring.value += _RAISES
    for setting in settings:
        field = section.members.get(setting.field)
        if isinstance(field, griffe.Attribute):
            field.value = None if setting.default is MISSING else repr(setting.default)


def as_markdown(docstring: str, module: str, homes: dict[str, str]) -> str:
    """``:class:`~a.B``` becomes ``[`B`][a.B]`` and "::" before a block of code goes.

    Args:
        docstring: as it stands in the source.
        module: that it stands in, where a name without dots is looked for first, and then among
            all.
        homes: of each path that the reference shows the one that its heading has; what the
            reference does not show stays a name.
    """

    def link(found: re.Match[str]) -> str:
        short, target = found.groups()
        shown = target.rpartition(".")[2] if short else target
        alike = [home for home in {*homes.values()} if home.endswith(f".{target}")]
        for path in (target, f"{module}.{target}", *(alike if len(alike) == 1 else ())):
            parent, _, leaf = path.rpartition(".")
            if path in homes:
                return f"[`{shown}`][{homes[path]}]"
            if parent in homes and not leaf.startswith("_"):
                return f"[`{shown}`][{homes[parent]}.{leaf}]"
        return f"`{shown}`"

    return re.sub(r"^::\n", "", _ROLE.sub(link, docstring), flags=re.MULTILINE)
