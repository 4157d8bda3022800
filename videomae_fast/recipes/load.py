"""A configuration from a recipe and from what is to differ: defaults < recipe file < overrides."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_origin

from videomae_fast.errors import UsageError
from videomae_fast.recipes.catalogue import find
from videomae_fast.recipes.fields import Config, Setting, SettingError, settings
from videomae_fast.recipes.plain import LIST_FIELDS, C, changed, dotted, unknown

_NONE: Final = "none"
"""What stands for no value where a field may have none: TOML and the command line have no null."""


def load(kind: type[C], recipe: str | Path, overrides: Mapping[str, Any] | None = None) -> C:
    """The configuration of a recipe, with other values for some of its fields.

    Precedence: the fields' defaults, then the recipe's file, then ``overrides``.

    Args:
        kind: the configuration's class, :class:`~videomae_fast.recipes.schema.PretrainConfig`.
        recipe: the name of one that comes with the package, or the path of a TOML file.
        overrides: values by dotted name, ``{"optim.base_lr": 1e-3}``.

    Returns:
        The configuration.

    Raises:
        UsageError: no such recipe, no TOML, an unknown field (says what was meant), or a value that
            can't be; names file, line where it can be known, and field.
    """
    file = find(kind.task, recipe)
    written = read(kind, file)
    given = dict(overrides or {})
    try:
        return changed(kind(), {**written.values, **given})
    except SettingError as error:
        if error.name in given:
            raise
        raise SettingError(error.name, f"{written.place(error.name)}: {error}") from None


@dataclass(frozen=True)
class Written:
    """What a recipe's file says.

    Attributes:
        file: the file.
        text: what is in it.
        values: by dotted name.
    """

    file: Path
    text: str
    values: dict[str, Any]

    def place(self, name: str) -> str:
        """File and, where it can be known, line of a field."""
        line = line_of(self.text, name)
        return str(self.file) if line is None else f"{self.file}, line {line}"


def read(kind: type[Config], file: Path) -> Written:
    """Reads a recipe's file.

    Raises:
        UsageError: it can't be read, is no TOML, or has a field that there is not.
    """
    try:
        text = file.read_text(encoding="utf-8")
        nested = tomllib.loads(text)
    except OSError as error:
        raise UsageError(f"{file}: can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{file}: is not UTF-8, so it is no TOML") from None
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{file}: no TOML: {error}") from None
    try:
        values = dotted(kind, nested)
        for name in values:
            if name not in settings(kind):
                raise unknown(kind, name)
    except SettingError as error:
        place = Written(file, text, {}).place(error.name)
        raise SettingError(error.name, f"{place}: {error}") from None
    known = settings(kind)
    return Written(
        file,
        text,
        {
            name: None if known[name].optional and value == _NONE else value
            for name, value in values.items()
        },
    )


def parse_set(kind: type[Config], text: str) -> tuple[str, Any]:
    """``NAME=VALUE`` as dotted name and value.

    Raises:
        SettingError: no ``=``, an unknown name (says what was meant), or a value that can't be.
    """
    name, equals, value = text.partition("=")
    name = name.strip()
    if not equals:
        raise SettingError(name, f"{text!r} has no value: write NAME=VALUE, as in optim.base_lr=1")
    if name not in settings(kind):
        raise unknown(kind, name)
    return name, parse(settings(kind)[name], value.strip())


def parse(setting: Setting, text: str) -> Any:
    """A field's value as it is written on the command line.

    Two numbers stand with a comma or an x between them. ``none`` is none where a field may be that,
    but for a list's root, which may be a folder of that name.

    Raises:
        SettingError: text that is no value of the field.
    """
    if setting.name in LIST_FIELDS:
        how = f"{LIST_FIELDS[setting.name]} LIST"
        raise SettingError(
            setting.name, f"{setting.name} is given with {how}, or in a recipe's file"
        )
    if setting.optional and text.lower() == _NONE and Path not in setting.plain_kinds:
        return None
    for kind in setting.plain_kinds:
        try:
            value = _READ[get_origin(kind) or kind](text)
        except (ValueError, KeyError):
            continue
        setting.check(value)
        return value
    setting.check(text)
    return text


def _pair(text: str) -> tuple[float, ...]:
    parts = re.split(r"\s*[x,\s]\s*", text.strip("[]() ").lower())
    return tuple(int(part) if part.isdecimal() else float(part) for part in parts)


_READ: Final[dict[Any, Any]] = {
    int: int,
    float: float,
    Path: Path,
    bool: {"true": True, "false": False}.__getitem__,
    tuple: _pair,
}


def line_of(text: str, name: str) -> int | None:
    """The line, from 1, that a dotted name stands in; that of its table for one without."""
    table, found = "", None
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[+\s*([^\]\s]+)\s*\]", line):
            table = header[1]
            here = table
        elif key := re.match(r"\s*([\w.-]+)\s*=", line):
            here = f"{table}.{key[1]}" if table else key[1]
        else:
            continue
        if here == name:
            found = found or number
    return found
