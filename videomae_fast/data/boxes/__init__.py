"""Annotated and detected boxes of key frames: AVA's files."""
