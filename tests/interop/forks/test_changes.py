"""Changes to a model, before and after accelerate: they count, or are refused in a sentence."""

from __future__ import annotations

import pytest

from tests.interop.forks import additions, attributes, changes, inputs, tricks
from tests.interop.forks.comparing import Outcome, outcome, training
from tests.interop.forks.sources import fresh, model_of

VALUES = {f"value: {name}": case for name, case in attributes.ALL.items()}
TRICKS = {f"trick: {name}": case for name, case in tricks.ALL.items()}
CASES = {**changes.ALL, **VALUES, **additions.ALL, **TRICKS}
# These change what models of the same file share
IN_CLASSES = [name for name in CASES if name.startswith(("class", "trick"))]
# The others are seen in the same way at the start, whatever they are
BEFORE = IN_CLASSES + [name for name in CASES if name not in IN_CLASSES][::5]
OFFICIAL = fresh()
pytestmark = pytest.mark.filterwarnings("ignore:Full backward hook", "ignore:Using a non-full")


def of(name: str, when: str) -> Outcome:
    case = CASES[name]
    model, twin = (
        model_of(fresh() if name in IN_CLASSES else OFFICIAL, case.classifier, **case.settings)
        for _ in range(2)
    )
    run = training(inputs.classification if case.classifier else inputs.pretraining)
    return outcome(model, run, twin=twin, **{when: case.change})


def check(name: str, when: str) -> None:
    found = of(name, when)
    assert found.unchangeable == CASES[name].raises
    assert found.wrong is None, found


@pytest.mark.parametrize("name", CASES)
def test_a_change_after_counts_or_is_refused(name):
    check(name, "after")


@pytest.mark.parametrize("name", BEFORE)
def test_a_change_before_counts_or_is_refused(name):
    check(name, "before")
