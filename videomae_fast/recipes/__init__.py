"""Configurations as values, and recipes as files: imports nothing but the standard library.

:mod:`~videomae_fast.recipes.schema` has the sections, :mod:`~videomae_fast.recipes.load` makes a
configuration of a recipe and what is to differ from it.
"""

from __future__ import annotations
