"""The public interface changes on purpose, or not at all."""

from __future__ import annotations

from tests.packaging.public_api import FILE, surface


def test_it_is_what_is_written_down() -> None:
    written, found = FILE.read_text(encoding="utf-8").splitlines(), surface()
    gone, new = sorted({*written} - {*found}), sorted({*found} - {*written})
    assert not gone + new, (
        "the public interface has changed: if that is meant, say so in CHANGELOG.md and run "
        "`python tests/packaging/public_api.py --write`"
    )
    assert written == found
