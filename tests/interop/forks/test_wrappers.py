"""Models within others, and models that are copied, moved, saved, exported or quantised."""

from __future__ import annotations

import pytest
import torch

from tests.interop.forks import inputs, wrappers
from tests.interop.forks.comparing import nothing, outcome, training
from tests.interop.forks.sources import fresh, model_of
from tests.interop.forks.uses import called

OFFICIAL = fresh()
PRETRAINING = training(inputs.pretraining)
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture(scope="module", autouse=True)
def _one_process(tmp_path_factory):
    store = tmp_path_factory.mktemp("group") / "store"
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=0, world_size=1
    )
    yield
    torch.distributed.destroy_process_group()


def check(when, change, run=PRETRAINING, classifier=False) -> None:
    found = outcome(model_of(OFFICIAL, classifier), run, **{when: change})
    assert not found.unchangeable
    assert found.wrong is None, found


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("name", wrappers.WRAPPERS)
def test_wrappers(name, when):
    if wrappers.missing(name):
        pytest.skip(f"{wrappers.NEEDED[name]} is not installed")
    check(when, wrappers.WRAPPERS[name])


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("name", wrappers.WHOLE)
def test_the_whole_model(name, when):
    check(when, wrappers.WHOLE[name])


@pytest.mark.parametrize(
    ("name", "when"), [("Module.compile", "after"), ("a compiled user's module", "before")]
)
def test_compiled(name, when):
    check(when, wrappers.COMPILED[name], called(inputs.clips()), classifier=True)


@pytest.mark.parametrize("name", wrappers.TOOLS)
def test_tools(name):
    check("after", nothing, wrappers.TOOLS[name])


@pytest.mark.parametrize("name", wrappers.CLASSIFIER_TOOLS)
def test_tools_with_the_classifier(name):
    check("after", nothing, wrappers.CLASSIFIER_TOOLS[name], classifier=True)
