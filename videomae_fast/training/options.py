"""Fields that document themselves, their checks, and their conversion to and from JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from videomae_fast.errors import UsageError

if TYPE_CHECKING:
    from videomae_fast.data.lists.sources import Source


def option(
    default: Any,
    text: str,
    *,
    group: str,
    kind: type = int,
    choices: tuple[str, ...] | None = None,
    least: float | None = None,
    resumable: bool = False,
) -> Any:
    """A field with its metadata.

    text: for ``--help``; kind: type of a value (of each, in a tuple); choices: allowed strings;
    least: smallest number allowed; resumable: may differ when a run is resumed, since it does not
    change what the run computes.
    """
    return field(
        default=default,
        metadata={
            "help": text,
            "group": group,
            "kind": kind,
            "choices": choices,
            "least": least,
            "resumable": resumable,
        },
    )


def check_value(name: str, value: Any, default: Any, meta: Mapping[str, Any]) -> None:
    """Raises UsageError for a value of the wrong type, or out of its range."""
    kind, choices, least = meta["kind"], meta["choices"], meta["least"]
    if kind is object or (value is None and default is None):
        return
    parts = value if isinstance(value, tuple) else (value,)
    sizes = {"betas": (2,), "image_size": (1, 2)}.get(name, (1,))
    allowed = (int, float) if kind is float else (kind,)
    fits = len(parts) in sizes and all(
        isinstance(part, allowed) and (kind is bool or not isinstance(part, bool)) for part in parts
    )
    if not fits:
        raise UsageError(f"{name} must be {_named(kind, sizes[-1])}, not {value!r}")
    if choices is not None and value not in choices:
        raise UsageError(f"{name} {value!r} is none of {', '.join(choices)}")
    if kind is float and not all(abs(part) < float("inf") for part in parts):
        raise UsageError(f"{name} must be a finite number, not {value}")
    if least is not None and min(parts) < least:
        raise UsageError(f"{name} must be at least {least}, not {value}")


def _named(kind: type, count: int) -> str:
    word = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}[kind]
    return word if count == 1 else f"{word} (or {count} of them)"


def plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    return str(value) if isinstance(value, Path) else value


def as_source(value: Any) -> Source:
    from videomae_fast.data.lists.sources import Source

    if isinstance(value, Source):
        return value
    defaults = {one.name: one.default for one in fields(Source)}
    unknown = sorted(set(value) - set(defaults))
    if unknown:
        raise UsageError(f"unknown option of a data list: {', '.join(unknown)}")
    missing = [name for name, d in defaults.items() if d is MISSING and name not in value]
    if missing:
        raise UsageError(f"a data list without {', '.join(missing)}")
    tuples = {name: tuple(each) for name, each in value.items() if isinstance(each, list)}
    return Source(**{**value, **tuples})
