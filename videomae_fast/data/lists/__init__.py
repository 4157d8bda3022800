"""Data lists: read and written, the videos that go into one, and several mixed by weight."""

from videomae_fast.data.lists.reading import EXPECTED, ClipList, Entry, load_list
from videomae_fast.data.lists.writing import list_line

__all__ = ["EXPECTED", "ClipList", "Entry", "list_line", "load_list"]
