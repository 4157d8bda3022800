"""Changes to a model, before and after accelerate: they count, or are refused in a sentence."""

from __future__ import annotations

import pytest

from tests.interop.forks import changes, inputs
from tests.interop.forks.changes import Case
from tests.interop.forks.comparing import Outcome, outcome, training
from tests.interop.forks.sources import fresh, model_of

CASES = changes.ALL


def of(case: Case, when: str) -> Outcome:
    # Each in classes of its own, as some changes are made to the classes
    model, twin = (model_of(fresh(), case.classifier, **case.settings) for _ in range(2))
    run = training(inputs.classification if case.classifier else inputs.pretraining)
    return outcome(model, run, twin=twin, **{when: case.change})


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("name", CASES)
def test_a_change_counts_or_is_refused(name, when):
    found = of(CASES[name], when)
    assert found.unchangeable == CASES[name].raises
    assert found.wrong is None, found
