"""The configuration of before: all fields in one level. It serves for one version, with a warning.

New code takes :class:`videomae_fast.recipes.PretrainConfig`, whose fields stand in sections.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Final

from videomae_fast.recipes import schema
from videomae_fast.recipes.fields import Section
from videomae_fast.recipes.plain import by_flat_name, changed, from_flat, from_plain, to_plain

MOVED: Final = {
    "model_config": "videomae_fast.models.config.mae_config(config.model)",
    "mask_spec": "videomae_fast.masks.spec.mask_spec(config.masks)",
    "sources": "videomae_fast.data.lists.sources.sources_of(config.data)",
    "dataset": "videomae_fast.tasks.pretraining.dataset_of(config)",
    "total_steps": "videomae_fast.training.schedule.total_steps(config.schedule, n)",
}
"""What a configuration made by itself, and where each room makes it from its section."""


class PretrainConfig(schema.PretrainConfig):
    """A pre-training run by the names of its options: ``PretrainConfig(size="small", epochs=30)``.

    It is a configuration in sections, and is equal to one. The former names are taken, and read
    (``config.base_lr``), with a warning that says the new one; sections are taken without.

    Args:
        values: fields by their former names, or sections.

    Raises:
        SettingError: no such field, or a value that can't be.
    """

    def __init__(self, **values: Any) -> None:
        flat = {name: value for name, value in values.items() if not _is_section(name, value)}
        given = {name: value for name, value in values.items() if name not in flat}
        base = schema.PretrainConfig(**given)
        if flat:
            base = changed(base, from_flat(schema.PretrainConfig, flat))
            _warn(flat)
        super().__init__(**{one.name: getattr(base, one.name) for one in fields(base)})

    def __getattr__(self, name: str) -> Any:
        setting = by_flat_name(schema.PretrainConfig).get(name)
        if setting is None:
            told = f"{type(self).__name__!r} object has no attribute {name!r}"
            raise AttributeError(told + (f": it is {MOVED[name]} now" if name in MOVED else ""))
        _warn([name])
        return getattr(getattr(self, setting.section), setting.field)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, schema.PretrainConfig) and to_plain(self) == to_plain(other)

    def __hash__(self) -> int:
        return hash(tuple(getattr(self, one.name) for one in fields(self)))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, in sections."""
        return to_plain(self)

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> schema.PretrainConfig:
        """The configuration of plain values, in sections or in one level.

        Raises:
            SettingError: no such field, or a value that can't be.
        """
        return from_plain(schema.PretrainConfig, values)


def _is_section(name: str, value: object) -> bool:
    """``data`` is the name of a section and was that of the lists."""
    return name in schema.PretrainConfig.__dataclass_fields__ and isinstance(value, Section)


def _warn(names: Any) -> None:
    known = by_flat_name(schema.PretrainConfig)
    told = ", ".join(f"{name} is {known[name].name}" for name in names)
    warnings.warn(
        "videomae_fast.training.PretrainConfig has its fields in sections now "
        f"(videomae_fast.recipes.PretrainConfig): {told}",
        DeprecationWarning,
        stacklevel=3,
    )
