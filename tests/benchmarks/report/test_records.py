"""The commands of tables and plots, on records that are none."""

from __future__ import annotations

import pytest

from benchmarks.report import plots, records


@pytest.mark.parametrize("main", [records.main, plots.main])
@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "one.json can't be read"),
        ("{", "one.json can't be read"),
        ("[]", "one.json is no record"),
        ('{"kind": "diary"}', "one.json is of 'diary', not of"),
    ],
)
def test_each_is_told_by_its_name(main, text, told, tmp_path, capsys):
    path = tmp_path / "one.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SystemExit):
        main([str(path)])
    assert told in capsys.readouterr().err
