"""The values that masks and label maps hold."""

IGNORE = 255
"""The label of pixels that count nowhere: void in a query, background in a support."""
WIDE_IGNORE = 65535
"""The same in base labels of more classes than a byte holds."""
MOST_CLASSES = IGNORE - 1
"""Classes that a label map of bytes can hold, beside background and void."""
