"""Progressive training: the stages of a plan one after the other, weights handed on, resumable."""

from __future__ import annotations
