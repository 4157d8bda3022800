"""Stores: many videos in few files, read by row, on a disk or in an object store."""
