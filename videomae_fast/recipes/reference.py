"""Reference pages of all fields: ``python -m videomae_fast.recipes.reference TASK`` prints one."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import MISSING
from typing import Any, Final

from videomae_fast.recipes.box_source import BOXES_BY_OPTION, BoxSource
from videomae_fast.recipes.catalogue import names, recipe
from videomae_fast.recipes.fields import Config, Setting, sections, settings, settings_of
from videomae_fast.recipes.kinds import KINDS
from videomae_fast.recipes.plain import LIST_FIELDS, LISTS, source_kind
from videomae_fast.recipes.schema import PretrainConfig
from videomae_fast.recipes.source import BY_OPTION, Source

_HEAD: Final = """\
# Configuration: {task}

Written by `make reference` from the declarations of the fields; `videomae-fast {command} --help`
says the same.

A value is the field's default, unless the recipe's file says another, unless the command line
says another: **defaults < recipe < options**. A field is given by its option, or as `--set
NAME=VALUE` by its dotted name; both for one field are an error.

A recipe is a TOML file: a table per section, only what differs from the defaults. TOML has no
null; `"none"` stands for it. `videomae-fast recipes show NAME > mine.toml` copies one of the
package's.

```toml
[model]
size = "small"
image_size = {size}

[optim]
base_lr = 3e-4

[[data.lists]] # one per list
path = "train.csv"
weight = 2.0
```

A run writes its configuration to `config.json` and into each checkpoint: `"format": 2` and a
section per key. {format}**Resume**
says whether a field may change when a run goes on; what may not is part of what the run computes.
"""

_FORMAT_1: Final = (
    "Format 1, which had all fields in one level under the names of their options, is\nread. "
)

_LISTS: Final = """\
### A data list

`{flags} LIST,NAME=VALUE,...` gives these under the names of the second column; a recipe's file
under those of the first.
"""

_RECIPES: Final = """\
## Recipes

`videomae-fast recipes` lists them. None of these runs was repeated for this package: costs and
scores are those that the papers and the official repositories state.
"""


def page(kind: type[Config] = PretrainConfig) -> str:
    """The page as Markdown."""
    lists = [flag for name, flag in LIST_FIELDS.items() if name in settings(kind)]
    pretraining = kind is PretrainConfig
    size = "[128, 160] # height, width" if pretraining else "160 # a side: clips are squares"
    source = source_kind(settings(kind)[LISTS]) or Source
    told = {
        "{task}": kind.task,
        "{command}": kind.command_line(),
        "{size}": size,
        "{format}": _FORMAT_1 if pretraining else "",
    }
    head = _HEAD
    for place, text in told.items():
        head = head.replace(place, text)
    parts = [head]
    for name, section in sections(kind).items():
        parts.append(f"## {name}\n\n{_first_line(section)}\n")
        parts.append(_table(settings_of(section, name)))
    parts += [
        _LISTS.replace("{flags}", "` or `".join(lists)),
        _list_table(source),
        _RECIPES,
        _recipe_table(kind.task),
    ]
    return "\n".join(parts)


def _table(settings: Iterable[Setting]) -> str:
    rows = [
        (f"`{one.field}`", f"`{one.flag}`", one.values, _default(one), _text(one),
         "yes" if one.option.resumable else "no")
        for one in settings
    ]  # fmt: skip
    return _markdown(("field", "option", "values", "default", "meaning [unit]", "resume"), rows)


def _list_table(source: type[Source] | type[BoxSource]) -> str:
    options = BY_OPTION if source is Source else BOXES_BY_OPTION
    rows = []
    for one in settings_of(source, LISTS):
        flat = f"`{one.flat}`" if one.flat in options else ""
        rows.append((f"`{one.field}`", flat, one.values, _default(one), _text(one)))
    return _markdown(("field", "of `--data`", "values", "default", "meaning [unit]"), rows)


def _recipe_table(task: str) -> str:
    rows = []
    for name in names(task):
        one = recipe(task, name)
        facts = (one.facts[key] for key in ("data", "cost", "expected", "source"))
        rows.append((f"`{name}`", *facts))
    return _markdown(("name", "data", "cost", "expected", "source"), rows)


def _first_line(section: Any) -> str:
    return str(section.__doc__).strip().splitlines()[0]


def _text(setting: Setting) -> str:
    return setting.meaning.replace("|", "\\|")


def _default(setting: Setting) -> str:
    if setting.default is MISSING:
        return "must be given"
    return "none" if setting.default is None else f"`{json.dumps(setting.default)}`"


def _markdown(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("-",) * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


if __name__ == "__main__":
    print(page(KINDS[sys.argv[1] if len(sys.argv) > 1 else PretrainConfig.task]), end="")
