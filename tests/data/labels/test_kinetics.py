"""Kinetics' names and rows agree with one another."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from videomae_fast.data.labels.kinetics import kinetics_names, kinetics_rows, other_names
from videomae_fast.errors import UsageError

GOLDEN = Path(__file__).parents[4] / "shared" / "golden" / "downstream_k710_labels.json"


@pytest.mark.skipif(not GOLDEN.is_file(), reason="the official repository's data are not here")
def test_names_and_rows_are_the_official_ones() -> None:
    golden = json.loads(GOLDEN.read_text())
    for classes in (400, 600, 700, 710):
        assert kinetics_names(classes) == golden["names"][str(classes)]
    for classes in (400, 600, 700):
        assert kinetics_rows(classes) == golden["index_710_to"][str(classes)]
    assert other_names() == golden["merged_names"]


@pytest.mark.parametrize("classes", [400, 600, 700])
def test_rows_pick_the_names(classes: int) -> None:
    names, rows = kinetics_names(classes), kinetics_rows(classes)
    all_names = kinetics_names(710)
    assert len(names) == len(rows) == classes
    assert len(set(rows)) == classes
    assert [all_names[row] for row in rows] == names


def test_every_row_belongs_to_a_set() -> None:
    rows = {row for classes in (400, 600, 700) for row in kinetics_rows(classes)}
    assert rows == set(range(710)) == set(kinetics_rows(710))
    assert len(set(kinetics_names(710))) == 710


def test_other_names_lead_to_names() -> None:
    merged = other_names()
    assert len(merged) == 15
    assert set(merged.values()) <= set(kinetics_names(710))


def test_there_is_no_kinetics_500() -> None:
    for function in (kinetics_names, kinetics_rows):
        with pytest.raises(UsageError, match="no Kinetics-500: 400, 600, 700, 710"):
            function(500)
