"""Configurations to plain values and back, and with some of their fields changed.

What a run writes has ``"format": 2`` and a section per key. Format 1 had no number and all fields
of a pre-training run in one level, under the names that they have on the command line; it is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, Final, TypeVar, get_args, get_origin

from videomae_fast.errors import did_you_mean
from videomae_fast.recipes.box_source import BoxSource
from videomae_fast.recipes.fields import (
    Config,
    Setting,
    SettingError,
    sections,
    settings,
    settings_of,
)
from videomae_fast.recipes.source import Source

FORMAT: Final = 2
"""Of the configurations that are written."""

LISTS: Final = "data.lists"
"""The field that holds data lists; in a message of one list, the name of its options."""

LIST_FIELDS: Final = {LISTS: "--data", "data.validation": "--validation"}
"""All fields that hold data lists, with the options of the command line that give them."""

C = TypeVar("C", bound=Config)


def to_plain(config: Config) -> dict[str, Any]:
    """Plain values for JSON.

    Args:
        config: of any kind.

    Returns:
        A dict per section, and the number of the format; paths become strings, tuples lists.
    """
    return {
        "format": FORMAT,
        **{
            name: {
                setting.field: _plain(getattr(getattr(config, name), setting.field))
                for setting in settings_of(section, name)
            }
            for name, section in sections(type(config)).items()
        },
    }


def from_plain(kind: type[C], values: Mapping[str, Any]) -> C:
    """The inverse of :func:`to_plain`; also of format 1.

    Fields left out are of a version that had them not: they take what was done then, which is their
    default if nothing else is declared.

    Args:
        kind: the configuration's class.
        values: what :func:`to_plain` returned.

    Returns:
        The configuration.

    Raises:
        SettingError: a key that is no field, or a value that can't be.
    """
    if "format" not in values:
        return changed(kind(), _formerly(kind) | from_flat(kind, values))
    if values["format"] != FORMAT:
        raise SettingError(
            "format",
            f"format {values['format']!r} is none that this version reads: 1 (no number) or "
            f"{FORMAT}",
        )
    given = dotted(kind, {k: v for k, v in values.items() if k != "format"})
    return changed(kind(), _formerly(kind) | given)


def _formerly(kind: type[Config]) -> dict[str, Any]:
    """What was done before there were some of the fields, by dotted name."""
    told = {name: setting.option.formerly for name, setting in settings(kind).items()}
    return {name: value for name, value in told.items() if value is not None}


def dotted(kind: type[Config], values: Mapping[str, Any]) -> dict[str, Any]:
    """Nested values by dotted name.

    Raises:
        SettingError: no such section, or no section's values.
    """
    found: dict[str, Any] = {}
    for section, inner in values.items():
        if section not in sections(kind):
            raise SettingError(section, f"unknown section {section!r}{_hint(kind, section)}")
        if not isinstance(inner, Mapping):
            raise SettingError(section, f"{section} is a section: its fields stand in it")
        found |= {f"{section}.{name}": value for name, value in inner.items()}
    return found


def from_flat(kind: type[Config], values: Mapping[str, Any]) -> dict[str, Any]:
    """Values of format 1 by dotted name.

    Raises:
        SettingError: a name that is none.
    """
    known = by_flat_name(kind)
    for name in values:
        if name not in known:
            raise SettingError(name, f"unknown field {name!r}{did_you_mean(name, known)}")
    return {known[name].name: value for name, value in values.items()}


def by_flat_name(kind: type[Config]) -> dict[str, Setting]:
    """The fields by the names that they have on the command line and had in format 1."""
    return {setting.flat: setting for setting in settings(kind).values()}


def changed(config: C, values: Mapping[str, Any]) -> C:
    """A configuration with other values, all of them at once.

    Args:
        config: that is taken for all else.
        values: by dotted name, as in ``{"optim.base_lr": 1e-3}``. Lists stand for tuples, and
            strings and dicts for data lists, as JSON and TOML have them.

    Returns:
        A new configuration; the given one stays as it is.

    Raises:
        SettingError: a name that is none, or a value that can't be; the message says what was meant
            or what to do.
    """
    known = settings(type(config))
    found: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        if name not in known:
            raise unknown(type(config), name)
        setting = known[name]
        found.setdefault(setting.section, {})[setting.field] = _typed(setting, value)
    made = {}
    for name, section in sections(type(config)).items():
        now = getattr(config, name)
        kept = {one.name: getattr(now, one.name) for one in fields(now)}
        made[name] = section(**{**kept, **found[name]}) if name in found else now
    return type(config)(**made)


def unknown(kind: type[Config], name: str) -> SettingError:
    """The error for a dotted name that is none: it says what was meant."""
    return SettingError(name, f"unknown field {name!r}{_hint(kind, name)}")


def _hint(kind: type[Config], name: str) -> str:
    """What was meant by a dotted name: the same field of another section, or one like it."""
    last = name.rpartition(".")[2]
    for setting in settings(kind).values():
        if last in (setting.field, setting.flat):
            return f"; did you mean {setting.name}?"
    if "." in name:
        return did_you_mean(name, settings(kind))
    return did_you_mean(name, sections(kind)) or f"; there are {', '.join(sections(kind))}"


def _plain(value: Any) -> Any:
    if isinstance(value, Source | BoxSource):
        return {one.name: _plain(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, Path) else value


def _typed(setting: Setting, value: Any) -> Any:
    """A plain value as the field has it; what does not fit is left to the field's check."""
    if isinstance(value, (list, tuple)) and any(
        get_origin(k) is tuple for k in setting.plain_kinds
    ):
        kind = source_kind(setting)
        return tuple(value) if kind is None else tuple(as_source(one, kind) for one in value)
    return value


def source_kind(setting: Setting) -> type[Source] | type[BoxSource] | None:
    """The class of the data lists that a field holds, None for a field of something else."""
    for kind in setting.plain_kinds:
        for one in (Source, BoxSource):
            if get_args(kind)[:1] == (one,):
                return one
    return None


def as_source(value: Any, source: type[Source] | type[BoxSource] = Source) -> Any:
    """A data list of a path or of a dict of its fields; anything else as it is.

    Raises:
        SettingError: no such option, none of its path, or a value that can't be.
    """
    if isinstance(value, str):
        return source(Path(value))
    if not isinstance(value, Mapping):
        return value
    known = {setting.field: setting for setting in settings_of(source, LISTS)}
    given: dict[str, Any] = {}
    for name, one in value.items():
        if name not in known:
            meant = did_you_mean(name, known)
            raise SettingError(LISTS, f"unknown option of a data list: {name}{meant}")
        setting = known[name]
        given[name] = one = Path(one) if name in PATHS and isinstance(one, str) else (
            _typed(setting, one)
        )  # fmt: skip
        setting.check(one)
    for name, setting in known.items():
        if setting.default is MISSING and name not in given:
            raise SettingError(LISTS, f"a data list without {name}")
    try:
        return source(**given)
    except ValueError as error:
        raise SettingError(LISTS, f"{LISTS}: {error}") from None


PATHS: Final = ("path", "root", "proposals", "exclusions")
"""Fields of data lists that say where something lies."""
