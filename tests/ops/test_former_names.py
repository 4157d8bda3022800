"""Modules that were renamed after their ops are still found under their former names."""

from __future__ import annotations

from importlib import import_module

import pytest

import videomae_fast.ops
from videomae_fast.ops._former_names import FORMER

pytestmark = pytest.mark.without_gpu


@pytest.mark.parametrize("former", FORMER)
def test_a_former_module_warns_and_serves(former: str) -> None:
    op = FORMER[former]
    module = import_module(f"videomae_fast.ops.{former}")
    with pytest.warns(DeprecationWarning, match=f"is now videomae_fast.ops.{op};"):
        assert getattr(module, op) is getattr(videomae_fast.ops, op)


def test_both_spellings_of_an_import() -> None:
    with pytest.warns(DeprecationWarning, match="next version"):
        from videomae_fast.ops.gelu import bias_gelu
    from videomae_fast.ops import gelu

    with pytest.warns(DeprecationWarning, match="next version"):
        assert gelu.bias_gelu is bias_gelu
    with pytest.raises(AttributeError), pytest.warns(DeprecationWarning, match="version"):
        _ = gelu.no_such_op
