"""Models: few-shot segmenters and their parts. One file per method."""
