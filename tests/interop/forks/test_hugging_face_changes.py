"""Changes to Hugging Face's models: they count, or are refused in a sentence."""

from __future__ import annotations

import pytest

pytest.importorskip("transformers")

from tests.interop.forks.comparing import Outcome, outcome, training
from tests.interop.forks.hugging_face import CASES, LOSSES, Case, made

pytestmark = pytest.mark.filterwarnings("ignore:.gradient_checkpointing_enable:FutureWarning")


def of(case: Case, when: str) -> Outcome:
    run = training(case.loss or LOSSES[case.kind])
    return outcome(made(case.kind, **case.settings), run, **{when: case.change})


@pytest.mark.parametrize("kind", LOSSES)
def test_the_models_are_accelerated(kind):
    found = of(Case(kind=kind), "after")
    assert found.wrong is None
    assert found.refused is None
    assert found.replaced >= 4


def check(name: str, when: str) -> None:
    found = of(CASES[name], when)
    assert found.unchangeable == CASES[name].raises
    assert found.wrong is None, found


@pytest.mark.parametrize("name", CASES)
def test_a_change_after_counts_or_is_refused(name):
    check(name, "after")


@pytest.mark.parametrize("name", list(CASES)[::5])
def test_a_change_before_counts_or_is_refused(name):
    check(name, "before")
