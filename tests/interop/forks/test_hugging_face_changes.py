"""Changes to Hugging Face's models: they count, or are refused in a sentence."""

from __future__ import annotations

import pytest

pytest.importorskip("transformers")

from tests.interop.forks.comparing import Outcome, outcome, training
from tests.interop.forks.hugging_face import CASES, LOSSES, Case, made


def of(case: Case, when: str) -> Outcome:
    run = training(case.loss or LOSSES[case.kind])
    return outcome(made(case.kind, **case.settings), run, **{when: case.change})


@pytest.mark.parametrize("kind", LOSSES)
def test_the_models_are_accelerated(kind):
    found = of(Case(kind=kind), "after")
    assert found.wrong is None
    assert found.refused is None
    assert found.replaced >= 4


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("name", CASES)
def test_a_change_counts_or_is_refused(name, when):
    found = of(CASES[name], when)
    assert found.unchangeable == CASES[name].raises
    assert found.wrong is None, found
