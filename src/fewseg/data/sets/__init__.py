"""The data sets: one file each, found by its class's `name`."""
