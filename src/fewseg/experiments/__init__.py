"""Experiments: one file each; every one gives a table and a figure."""
