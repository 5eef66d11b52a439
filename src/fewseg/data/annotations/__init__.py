"""Exports of annotation tools, read as supports: one file per format."""
