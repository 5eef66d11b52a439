"""Readers of annotation tools' exports, which give photos with masks: one file per format."""
