"""Inputs that the original refuses are refused; what it computes is the same, or is refused."""

from __future__ import annotations

import pytest

from tests.interop.forks import tricks, uses
from tests.interop.forks.comparing import Run, outcome
from tests.interop.forks.sources import fresh, model_of

OFFICIAL = fresh()
pytestmark = pytest.mark.filterwarnings("ignore:indexing with dtype torch.uint8")


def check(run: Run, classifier: bool = False) -> None:
    found = outcome(model_of(OFFICIAL, classifier), run)
    assert found.wrong is None, found
    assert found.replaced >= 3


@pytest.mark.parametrize("name", uses.INPUTS)
def test_inputs(name):
    check(uses.INPUTS[name])


@pytest.mark.parametrize("name", uses.CLASSIFIER_INPUTS)
def test_inputs_of_the_classifier(name):
    check(uses.CLASSIFIER_INPUTS[name], classifier=True)


@pytest.mark.parametrize("name", tricks.CONTEXTS)
def test_contexts(name):
    check(tricks.CONTEXTS[name])


@pytest.mark.parametrize("name", uses.TRANSFORMS)
def test_transforms(name):
    check(uses.TRANSFORMS[name])
