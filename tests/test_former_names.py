"""What was renamed keeps its former name for one version, with a warning."""

from __future__ import annotations

from importlib import import_module

import pytest


@pytest.mark.parametrize(
    ("module", "former", "name"),
    [
        ("videomae_fast.data", "Feeding", "PipelineStats"),
        ("videomae_fast.interop", "Told", "SourceHints"),
        ("videomae_fast.interop", "Wanted", "ConversionOptions"),
    ],
)
def test_former_names_give_what_they_named(module: str, former: str, name: str) -> None:
    found = import_module(module)
    with pytest.warns(DeprecationWarning, match=rf"^{module}\.{former} is now {name}; the next"):
        assert getattr(found, former) is getattr(found, name)
    assert former not in found.__all__


def test_other_names_are_none() -> None:
    with pytest.raises(
        AttributeError, match=r"module 'videomae_fast\.data' has no attribute 'Fed'"
    ):
        import_module("videomae_fast.data").Fed  # noqa: B018
