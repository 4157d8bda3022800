"""The stand-ins for the official code count as it."""

from __future__ import annotations

import pytest

from tests.support.known import know_the_stand_ins


@pytest.fixture(scope="session", autouse=True)
def _stand_ins_are_known():
    know_the_stand_ins()
