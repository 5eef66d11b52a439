"""Data: image sources, the index, episode lists, transforms and the episode data set."""
