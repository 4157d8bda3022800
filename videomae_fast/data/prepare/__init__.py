"""A list's videos transcoded once to files that training reads quickly.

:func:`transcode` does one file, :func:`prepare` a list: in processes that may crash, with a
journal from which a run that was stopped goes on.
"""

from __future__ import annotations

from videomae_fast.data.prepare.run import Prepared, prepare
from videomae_fast.data.prepare.settings import PrepareSettings
from videomae_fast.data.prepare.transcoding import Job, Transcoded, transcode

__all__ = ["Job", "PrepareSettings", "Prepared", "Transcoded", "prepare", "transcode"]
