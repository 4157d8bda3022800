"""Detection of actions: detectors trained and tested on key frames with boxes."""

from __future__ import annotations
