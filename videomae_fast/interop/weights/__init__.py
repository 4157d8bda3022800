"""Weights files of every layout: read, changed, checked and written.

:mod:`.read` (files to weights by official names) → :mod:`.heads` and :mod:`.model_weights` (what is
changed) → :mod:`.check` → :mod:`.contents` (weights by a layout's names) and :mod:`.write`.
:mod:`.layouts` has the names, :mod:`.convert` the way through.
"""
