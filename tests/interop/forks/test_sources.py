"""Forks of the official files: refused in a sentence, or the same loss and gradients."""

from __future__ import annotations

import pytest

from tests.interop.forks import blocks, inputs, wholes
from tests.interop.forks.comparing import outcome, training
from tests.interop.forks.sources import Fork, adopt, fresh, model_of

FORKS = {**blocks.ALL, **wholes.ALL}
RELOADED = list(FORKS)[::10]  # the mechanism is the same for all
# Each fifth, and those that give other outputs; "other for larger batches" depends on data, which
# no comparison can see
COMPARED = {
    *list(FORKS)[::5], "model: the decoder mask the other way",
    "model: features beside the prediction",
} - {"block: other for larger batches"}  # fmt: skip


def run_of(classifier: bool):
    return training(inputs.classification if classifier else inputs.pretraining)


@pytest.mark.parametrize("settings", [{}, {"drop_path": 0.4}, {"init_values": 0.5}], ids=str)
@pytest.mark.parametrize("classifier", [False, True])
def test_the_official_structure_is_accelerated(classifier, settings):
    found = outcome(model_of(fresh(), classifier, **settings), run_of(classifier))
    assert found.wrong is None
    assert found.refused is None
    assert found.replaced >= 3


@pytest.mark.parametrize("name", FORKS)
def test_a_fork_is_refused_or_the_same(name):
    fork: Fork = FORKS[name]
    found = outcome(fork.model(fork.module()), run_of(fork.classifier))
    assert found.wrong is None, found


@pytest.mark.parametrize("name", sorted(COMPARED))
def test_a_fork_that_is_taken_for_the_known_code_is_refused_or_the_same(name):
    """By numbers alone, as ``unknown_code="compare"`` does it."""
    fork: Fork = FORKS[name]
    model = fork.model(fork.module())
    found = outcome(model, run_of(fork.classifier), unknown_code="compare")
    assert found.wrong is None, found


@pytest.mark.parametrize("name", RELOADED)
def test_a_fork_that_is_loaded_into_the_classes_afterwards_counts(name):
    """As on reloading a changed file: the models that are there get the new functions."""
    fork: Fork = FORKS[name]
    settings = {k: v for k, v in fork.settings.items() if k in ("drop_path", "use_mean_pooling")}
    forked = fork.model(fork.module())
    model, twin = (model_of(fresh(), fork.classifier, **settings) for _ in range(2))
    found = outcome(model, run_of(fork.classifier), twin=twin, after=lambda m: adopt(m, forked))
    assert found.wrong is None, found
