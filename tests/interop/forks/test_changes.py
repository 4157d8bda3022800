"""Changes to a model, before and after accelerate: they count, or are refused in a sentence."""

from __future__ import annotations

import pytest

from tests.interop.forks import additions, attributes, changes, inputs, tricks
from tests.interop.forks.changes import Case
from tests.interop.forks.comparing import Outcome, outcome, training
from tests.interop.forks.sources import fresh, model_of

VALUES = {f"value: {name}": case for name, case in attributes.ALL.items()}
TRICKS = {f"trick: {name}": case for name, case in tricks.ALL.items()}
CASES = {**changes.ALL, **VALUES, **additions.ALL, **TRICKS}
# What is there at the start is found in the same way, whatever it is
SIMILAR = [name for name in CASES if name.startswith(("method", "hook", "parametrised"))]
BEFORE = [name for name in CASES if name not in SIMILAR] + SIMILAR[::4]


def of(case: Case, when: str) -> Outcome:
    # Each in classes of its own, as some changes are made to the classes
    model, twin = (model_of(fresh(), case.classifier, **case.settings) for _ in range(2))
    run = training(inputs.classification if case.classifier else inputs.pretraining)
    return outcome(model, run, twin=twin, **{when: case.change})


def check(name: str, when: str) -> None:
    found = of(CASES[name], when)
    assert found.unchangeable == CASES[name].raises
    assert found.wrong is None, found


@pytest.mark.parametrize("name", CASES)
def test_a_change_after_counts_or_is_refused(name):
    check(name, "after")


@pytest.mark.parametrize("name", BEFORE)
def test_a_change_before_counts_or_is_refused(name):
    check(name, "before")
