"""Fakes of ops: once for each kind of arguments, and never for another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from videomae_fast.ops._fakes import fake_of

REAL = torch.empty(7, 3)
Fake = Callable[..., Any]


def product(x: Tensor, weight: Tensor | None, power: int, sizes: list[int]) -> tuple[Tensor, ...]:
    if weight is not None:
        x = x @ weight
    return x.t(), torch.zeros(sizes, device=x.device), (x**power).sum()


@pytest.fixture
def calls() -> list[int]:
    return []


@pytest.fixture
def mode() -> FakeTensorMode:
    return FakeTensorMode(shape_env=ShapeEnv())


@pytest.fixture
def fake(calls: list[int], mode: FakeTensorMode) -> Iterator[Fake]:
    def counted(*args: Any) -> Any:
        calls.append(1)
        return product(*args)

    with mode:
        yield fake_of(counted)


def told(results: tuple[Tensor, ...]) -> list[tuple[Any, ...]]:
    assert all(isinstance(one, FakeTensor) and one.is_contiguous() for one in results)
    return [(one.shape, one.dtype, one.device) for one in results]


def test_the_reference_runs_once_for_each_kind(fake: Fake, calls: list[int]) -> None:
    x, weight = torch.empty(2, 3), torch.empty(3, 5)
    first = told(fake(x, weight, 2, [4, 1]))
    assert first[0][:2] == ((5, 2), torch.float32)
    assert told(fake(torch.empty(3, 2).t(), torch.ones(3, 5), 2, [4, 1])) == first
    assert len(calls) == 1


@pytest.mark.parametrize(
    "another",
    [
        lambda: (torch.empty(4, 3), torch.empty(3, 5), 2, [4, 1]),
        lambda: (torch.empty(2, 3).bfloat16(), torch.empty(3, 5).bfloat16(), 2, [4, 1]),
        lambda: (torch.empty(2, 3, device="meta"), torch.empty(3, 5, device="meta"), 2, [4, 1]),
        lambda: (torch.empty(2, 3), None, 2, [4, 1]),
        lambda: (torch.empty(2, 3), torch.empty(3, 5), 2.0, [4, 1]),
        lambda: (torch.empty(2, 3), torch.empty(3, 5), 2, [4, 2]),
    ],
    ids=["shape", "dtype", "device", "none", "a float", "a list"],
)
def test_another_kind_is_computed(fake: Fake, calls: list[int], another: Fake) -> None:
    fake(torch.empty(2, 3), torch.empty(3, 5), 2, [4, 1])
    args = another()
    assert told(fake(*args)) == told(tuple(one.contiguous() for one in product(*args)))
    assert len(calls) == 2


def test_autocast_and_the_default_dtype_count(fake: Fake, calls: list[int]) -> None:
    args = torch.empty(2, 3), torch.empty(3, 5), 2, [4, 1]
    assert fake(*args)[0].dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert fake(*args)[0].dtype == torch.bfloat16
    torch.set_default_dtype(torch.float64)
    try:
        assert fake(*args)[1].dtype == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert len(calls) == 3


def test_symbols_are_known_by_what_they_are_of(
    fake: Fake, calls: list[int], mode: FakeTensorMode
) -> None:
    """Sizes of one environment; another's, of the same names, are computed anew."""
    x = mode.from_tensor(REAL, static_shapes=False)
    first, again = (fake(x, None, 2, [4, 1])[0] for _ in range(2))
    assert type(again.shape[1]) is torch.SymInt
    assert [str(size) for size in again.shape] == [str(size) for size in first.shape]
    assert len(calls) == 1
    rows = x.shape[0]
    assert fake(x.new_empty(rows + 1, 3), None, 2, [4, 1])[0].shape[1] == rows + 1
    assert len(calls) == 2
    other = FakeTensorMode(shape_env=ShapeEnv())
    with other:
        size = fake(other.from_tensor(REAL, static_shapes=False), None, 2, [4, 1])[0].shape[1]
        assert size.node.shape_env is other.shape_env
    assert len(calls) == 3


def test_a_number_that_is_a_symbol_counts(
    fake: Fake, calls: list[int], mode: FakeTensorMode
) -> None:
    rows, columns = mode.from_tensor(REAL, static_shapes=False).shape
    for size in (rows, columns, rows):
        assert fake(torch.empty(2, 3), None, 2, [4, size])[1].shape[1] == size
    assert len(calls) == 2


def test_an_error_comes_every_time(fake: Fake, calls: list[int]) -> None:
    for _ in range(2):
        with pytest.raises(RuntimeError, match="reduction dim"):
            fake(torch.empty(2, 3), torch.empty(4, 5), 2, [4, 1])
    assert len(calls) == 2
