"""Fields that say what they are: each is declared once, and everything else is read from there.

A section is a frozen dataclass whose fields are made by :func:`option`. The annotation gives the
type and, where it is a ``Literal``, the choices; :func:`option` gives default, unit, meaning and
bounds. :func:`settings` collects them for the command line, the reference page and the checks.
"""

from __future__ import annotations

import types
import typing
from dataclasses import Field, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Final, Literal, Union

from videomae_fast.errors import UsageError

_META: Final = "option"


class SettingError(UsageError):
    """A field holds what it can't hold, or there is no such field.

    Attributes:
        name: the field by its dotted name, ``optim.base_lr``; loaders find its line by it.
    """

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


@dataclass(frozen=True)
class Option:
    """What an annotation does not say of a field.

    Attributes:
        text: what the field means.
        unit: of its numbers; "" where they have none.
        least, most: bounds that are allowed themselves.
        above, below: bounds that are not.
        resumable: it may differ when a run is resumed, since it changes nothing that is computed.
        flat: its name on the command line and in configurations of format 1, "" for the field's.
        formerly: what runs did that were written before there was this field; None: its default.
    """

    text: str
    unit: str = ""
    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None
    resumable: bool = False
    flat: str = ""
    formerly: Any = None


def option(default: Any, text: str, **more: Any) -> Any:
    """A dataclass field with its :class:`Option`; ``MISSING`` is a field without a default."""
    return field(default=default, metadata={_META: Option(text, **more)})


@dataclass(frozen=True)
class Setting:
    """One field of one section, with all that is declared of it.

    Attributes:
        section: the section's name in a configuration, "" for a value outside of one.
        field: the field's name in its section.
        kind: its annotation, resolved.
        default: ``MISSING`` where there is none.
        option: the rest of the declaration.
    """

    section: str
    field: str
    kind: Any
    default: Any
    option: Option

    @property
    def name(self) -> str:
        """The dotted name, ``optim.base_lr``."""
        return f"{self.section}.{self.field}" if self.section else self.field

    @property
    def flat(self) -> str:
        """The name that it has on the command line and had in format 1."""
        return self.option.flat or self.field

    @property
    def flag(self) -> str:
        """Its option on the command line."""
        return f"--{self.flat.replace('_', '-')}"

    @property
    def meaning(self) -> str:
        """What it means, with its unit: the text of ``--help`` and of the reference page."""
        text, unit = self.option.text, self.option.unit
        return f"{text} [{unit}]" if unit else text

    @property
    def values(self) -> str:
        """What it may be, in words: its choices, or its type and bounds."""
        if self.choices is not None:
            words = ", ".join(self.choices)
        else:
            words = " or ".join(_in_words(kind) for kind in self.plain_kinds)
        option = self.option
        bounds = (
            ("at least", option.least), ("at most", option.most),
            ("above", option.above), ("below", option.below),
        )  # fmt: skip
        told = [f"{word} {bound}" for word, bound in bounds if bound is not None]
        return ", ".join([words, *told]) + (", or none" if self.optional else "")

    @property
    def optional(self) -> bool:
        """Whether None is a value."""
        return type(None) in _members(self.kind)

    @property
    def plain_kinds(self) -> tuple[Any, ...]:
        """The kinds that it may have but for None: scalars, literals and tuples."""
        return tuple(kind for kind in _members(self.kind) if kind is not type(None))

    @property
    def choices(self) -> tuple[str, ...] | None:
        """The strings that it may be, None where they are not listed."""
        for kind in self.plain_kinds:
            if typing.get_origin(kind) is Literal:
                return typing.get_args(kind)
        return None

    def check(self, value: Any) -> None:
        """Raises SettingError for a value of another type, or out of bounds."""
        if value is None and self.optional:
            return
        if self.choices is not None:
            if value not in self.choices:
                known = ", ".join(self.choices)
                raise SettingError(self.name, f"{self.name} {value!r} is none of {known}")
            return
        if not any(_is(value, kind) for kind in self.plain_kinds):
            wanted = " or ".join(_in_words(kind) for kind in self.plain_kinds)
            raise SettingError(self.name, f"{self.name} must be {wanted}, not {value!r}")
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, (int, float)):
                self._check_bounds(part)

    def _check_bounds(self, value: float) -> None:
        option = self.option
        for holds, bound in (
            (abs(value) < float("inf"), "a finite number"),
            (option.least is None or value >= option.least, f"at least {option.least}"),
            (option.most is None or value <= option.most, f"at most {option.most}"),
            (option.above is None or value > option.above, f"above {option.above}"),
            (option.below is None or value < option.below, f"below {option.below}"),
        ):
            if not holds:
                raise SettingError(self.name, f"{self.name} must be {bound}, not {value}")


def settings_of(section: Any, name: str = "") -> tuple[Setting, ...]:
    """The fields of a section's class, in its order."""
    return _settings_of(section, name)


@cache
def _settings_of(section: Any, name: str) -> tuple[Setting, ...]:
    hints = typing.get_type_hints(section)
    return tuple(
        Setting(name, one.name, hints[one.name], one.default, _option_of(one))
        for one in fields(section)
        if _META in one.metadata
    )


def settings(config: Any) -> dict[str, Setting]:
    """The fields of all sections of a configuration, by dotted name and in its order."""
    return {
        setting.name: setting
        for name, section in sections(config).items()
        for setting in settings_of(section, name)
    }


def sections(config: Any) -> dict[str, type[Any]]:
    """The sections' classes of a configuration's class, by name."""
    return _sections(config)


@cache
def _sections(config: Any) -> dict[str, type[Any]]:
    hints = typing.get_type_hints(config)
    return {one.name: hints[one.name] for one in fields(config)}


class Section:
    """Base of all sections: a section checks its own fields.

    It has its class's name in lower case, or is ``called`` otherwise; a subclass, with other
    defaults or more fields for another task, stands in the place of its base and has that one's
    name.

    Raises:
        SettingError: a value that can't be; the message names the field and what to do.
    """

    called: ClassVar[str] = ""

    def __post_init__(self) -> None:
        bases = [c for c in type(self).__mro__ if issubclass(c, Section) and c is not Section]
        name = self.called or bases[-1].__name__.lower()
        for setting in settings_of(type(self), name):
            setting.check(getattr(self, setting.field))


class Config:
    """Base of all configurations: a frozen dataclass of sections.

    Raises:
        SettingError: what stands in a section's place is none.
    """

    task: ClassVar[str]
    """What the configuration is for: the folder of its recipes."""
    command: ClassVar[str] = ""
    """The command that runs it, where that is not the task's name alone."""

    @classmethod
    def command_line(cls) -> str:
        """The words of the command that runs it."""
        return cls.command or cls.task

    def __post_init__(self) -> None:
        for name, kind in sections(type(self)).items():
            if not isinstance(getattr(self, name), kind):
                raise SettingError(name, f"{name} must be a {kind.__name__}(...) section")


def _option_of(one: Field[Any]) -> Option:
    found: Option = one.metadata[_META]
    return found


def _members(kind: Any) -> tuple[Any, ...]:
    if typing.get_origin(kind) in (Union, types.UnionType):
        return typing.get_args(kind)
    return (kind,)


def _is(value: Any, kind: Any) -> bool:
    """Whether a value is of a kind. True and False are no numbers, and whole numbers are."""
    if typing.get_origin(kind) is tuple:
        inner = typing.get_args(kind)
        if not isinstance(value, tuple):
            return False
        if inner[-1] is Ellipsis:
            return all(_is(part, inner[0]) for part in value)
        return len(value) == len(inner) and all(map(_is, value, inner))
    if kind in (int, float) and isinstance(value, bool):
        return False
    return isinstance(value, (int, float) if kind is float else kind)


_WORDS: Final = {
    int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "a path",
}  # fmt: skip
_MANY: Final = {int: "whole numbers", float: "numbers", str: "texts"}


def _in_words(kind: Any) -> str:
    if typing.get_origin(kind) is tuple:
        inner = typing.get_args(kind)
        count = "a list of" if inner[-1] is Ellipsis else str(len(inner))
        return f"{count} {_MANY.get(inner[0], 'data lists')}"
    return _WORDS[kind]
