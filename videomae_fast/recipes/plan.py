"""Plans of progressive training: stages in a TOML file, each a recipe and what differs from it.

::

    [common.run]              # for every stage that has the field
    device = "cuda"

    [[stages]]
    name = "hybrid"           # the stage's folder in OUTPUT
    task = "pretrain"         # pretrain, finetune, distill or test
    recipe = "vit_g_hybrid"   # by name, or a file; none for test
    set.data.lists = ["hybrid_train.csv"]

    [[stages]]
    name = "k710"
    task = "finetune"
    recipe = "vit_g_k710_ft"
    from = "hybrid"           # whose weights it begins from (else the training stage before)
    weights = "last"          # of that stage: last, or best by its validation
    set.data.lists = ["k710_train.csv"]

Precedence: defaults < recipe < common < the stage's ``set`` < the command line.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from videomae_fast.errors import UsageError, did_you_mean
from videomae_fast.recipes.catalogue import find
from videomae_fast.recipes.classification import FinetuneConfig
from videomae_fast.recipes.distillation import DistillConfig
from videomae_fast.recipes.fields import SettingError, settings
from videomae_fast.recipes.load import load, parse
from videomae_fast.recipes.multi_view import TestConfig
from videomae_fast.recipes.plain import LIST_FIELDS, changed, dotted
from videomae_fast.recipes.schema import PretrainConfig

StageConfig = PretrainConfig | FinetuneConfig | TestConfig
TASKS: Final[dict[str, type[PretrainConfig] | type[FinetuneConfig] | type[TestConfig]]] = {
    kind.task: kind for kind in (PretrainConfig, FinetuneConfig, DistillConfig, TestConfig)
}
FOLDER: Final = "progressive"
"""Of the plans that come with the package."""

_KEYS: Final = ("name", "task", "recipe", "from", "weights", "set")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_NONE: Final = "none"


@dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes:
        name: also of its folder.
        recipe: as the plan has it; None for a test, or for a field's defaults.
        source: the stage whose weights it begins from, or tests; None for one that begins anew, or
            from ``model.init``.
        weights: which of that stage's: "last" or "best".
        config: all of its fields; ``model.init`` is not filled in.
    """

    name: str
    recipe: str | None
    source: str | None
    weights: str
    config: StageConfig

    @property
    def task(self) -> str:
        return self.config.task


@dataclass(frozen=True)
class Plan:
    """The stages of a plan, in their order. file: that it was read from."""

    file: Path
    stages: tuple[Stage, ...]

    def __getitem__(self, name: str) -> Stage:
        return next(stage for stage in self.stages if stage.name == name)


def read_plan(name: str | Path, overrides: Sequence[str] = ()) -> Plan:
    """Reads a plan.

    Args:
        name: of one that comes with the package, or a TOML file.
        overrides: ``SECTION.FIELD=VALUE`` for every stage that has the field, or
            ``STAGE.SECTION.FIELD=VALUE`` for one.

    Raises:
        UsageError: no such file, no TOML, or something in it that can't be; names file, stage and
            field, and what was meant.
    """
    file = find(FOLDER, name)
    try:
        written = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{file}: can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{file}: is not UTF-8, so it is no TOML") from None
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{file}: no TOML: {error}") from None
    for key in written:
        if key not in ("common", "stages"):
            raise UsageError(
                f"{file}: unknown key {key!r}{did_you_mean(key, ('common', 'stages'))}"
            )
    rows = written.get("stages")
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise UsageError(f"{file}: names no stages: write a table [[stages]] for each")
    common = _common(file, written.get("common", {}), rows)
    given = _Given(overrides, [row.get("name") for row in rows])
    stages: list[Stage] = []
    for number, row in enumerate(rows, 1):
        place = f"{file}: stage {row.get('name', number)!r}"
        stages.append(_stage(place, row, common, given, stages))
    given.check_used()
    return Plan(file, tuple(stages))


def _stage(
    place: str,
    row: Mapping[str, Any],
    common: Mapping[str, Any],
    given: _Given,
    before: list[Stage],
) -> Stage:
    for key in row:
        if key not in _KEYS:
            raise UsageError(f"{place}: unknown key {key!r}{did_you_mean(key, _KEYS)}")
    name, task = row.get("name"), row.get("task")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise UsageError(f"{place}: needs a name of letters, digits, - and _, for its folder")
    if name in [stage.name for stage in before]:
        raise UsageError(f"{place}: is there twice; give each stage a name of its own")
    if task not in TASKS:
        raise UsageError(f"{place}: task {task!r} is none of {', '.join(TASKS)}")
    kind, recipe = TASKS[task], row.get("recipe")
    source, weights = _flow(place, row, before, kind is TestConfig)
    own = row.get("set", {})
    if not isinstance(own, Mapping):
        raise UsageError(f"{place}: set must hold fields, as in set.optim.base_lr = 1e-3")
    try:
        values = {name: value for name, value in common.items() if name in settings(kind)}
        values |= _labelled(kind, dotted(kind, own))
        values |= given.of(name, kind)
        if recipe is None:
            config: StageConfig = changed(kind(), _nothing(kind, values))
        elif kind is TestConfig:
            raise UsageError("recipe: a test has none; give its views with set")
        else:
            config = load(kind, str(recipe), _nothing(kind, values))
    except UsageError as error:
        raise UsageError(f"{place}: {error}") from None
    if not isinstance(config, TestConfig) and source is not None and config.model.init is not None:
        raise UsageError(
            f"{place}: begins from stage {source!r}, so model.init would not be read: leave it "
            'out, or say from = "none"'
        )
    return Stage(name, None if recipe is None else str(recipe), source, weights, config)


def _flow(
    place: str, row: Mapping[str, Any], before: Sequence[Stage], test: bool
) -> tuple[str | None, str]:
    """The stage whose weights a stage takes, and which of them."""
    trained = {stage.name: stage for stage in before if not isinstance(stage.config, TestConfig)}
    default = next(reversed(trained), _NONE)
    source, weights = row.get("from", default), row.get("weights", "last")
    if source == _NONE:
        if test:
            raise UsageError(f"{place}: no stage before it trains, so there is nothing to test")
        if "weights" in row:
            raise UsageError(f"{place}: weights = {weights!r} is of no stage: leave it out")
        return None, "last"
    if source not in trained:
        raise UsageError(
            f"{place}: from = {source!r} is no training stage before it"
            f"{did_you_mean(str(source), trained)}; there are {', '.join(trained) or 'none'}"
        )
    config = trained[source].config
    if test and not isinstance(config, FinetuneConfig):
        raise UsageError(f"{place}: {source!r} pre-trains and has no classes to test")
    if weights not in ("last", "best"):
        raise UsageError(f"{place}: weights {weights!r} is neither last nor best")
    if weights == "best" and not (isinstance(config, FinetuneConfig) and config.data.validation):
        raise UsageError(f"{place}: stage {source!r} validates nothing, so it has no best weights")
    return source, weights


def _common(file: Path, nested: Any, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The fields that hold for every stage that has them, by dotted name."""
    if not isinstance(nested, Mapping):
        raise UsageError(f"{file}: common must hold sections of fields")
    found = {}
    kinds = [TASKS[row["task"]] for row in rows if row.get("task") in TASKS]
    known = {name for kind in kinds for name in settings(kind)}
    for section, inner in nested.items():
        if not isinstance(inner, Mapping):
            raise UsageError(f"{file}: common.{section} is a section: its fields stand in it")
        for field, value in inner.items():
            name = f"{section}.{field}"
            if name not in known or name in LIST_FIELDS:
                raise UsageError(
                    f"{file}: common.{name} is a field of no stage{did_you_mean(name, known)}"
                )
            found[name] = value
    return found


def _labelled(kind: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """Lists of fine-tuning and test have lines ``path label`` where they don't say otherwise."""
    if kind is PretrainConfig:
        return dict(values)
    return {
        name: [_with_labels(one) for one in value]
        if name in LIST_FIELDS and isinstance(value, list)
        else value
        for name, value in values.items()
    }


def _with_labels(one: Any) -> Any:
    if isinstance(one, str):
        return {"path": one, "format": "labels"}
    return {"format": "labels", **one} if isinstance(one, Mapping) else one


def _nothing(kind: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """``"none"`` is none where a field may be that."""
    known = settings(kind)
    return {
        name: None if name in known and known[name].optional and value == _NONE else value
        for name, value in values.items()
    }


class _Given:
    """Overrides of the command line, and whether each was of a stage."""

    def __init__(self, texts: Sequence[str], stages: Sequence[Any]) -> None:
        self._values: list[tuple[str | None, str, str]] = []
        self._used: set[str] = set()
        for text in texts:
            name, equals, value = text.partition("=")
            if not equals:
                raise UsageError(f"--set {text}: has no value: write NAME=VALUE")
            first, _, rest = name.strip().partition(".")
            stage = first if first in stages and rest.count(".") == 1 else None
            self._values.append((stage, rest if stage else name.strip(), value.strip()))

    def of(self, stage: str, kind: Any) -> dict[str, Any]:
        """The values of a stage; its own win over those of all."""
        found = {}
        for own in (False, True):
            for where, name, value in self._values:
                if (where == stage if own else where is None) and name in settings(kind):
                    try:
                        found[name] = parse(settings(kind)[name], value)
                    except SettingError as error:
                        raise UsageError(f"--set {name}={value}: {error}") from None
                    self._used.add(f"{where}.{name}")
        return found

    def check_used(self) -> None:
        """Raises UsageError for one that no stage has."""
        for where, name, value in self._values:
            if f"{where}.{name}" not in self._used:
                if where is not None:
                    raise UsageError(f"--set {where}.{name}={value}: the stage has no field {name}")
                known = {known for kind in TASKS.values() for known in settings(kind)}
                raise UsageError(
                    f"--set {name}={value}: is a field of no stage{did_you_mean(name, known)}"
                )
