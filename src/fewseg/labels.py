"""The values that masks and label maps hold."""

IGNORE = 255
"""The label of pixels that count nowhere: void in a query, background in a support."""
WIDE_IGNORE = 65535
"""The same in base labels of more classes than a byte holds."""
MOST_CLASSES = IGNORE - 1
"""Classes that a label map of bytes can hold, beside background and void."""

REFINE = ("none", "fast", "best")
"""How often a photo is looked at: once, twice, or twice and mirrored as well."""
PRECISIONS = ("fp32", "bf16", "fp16")
"""How a network computes."""
SURE = 0.7
"""Before the second look: the probability from which a pixel counts as found, or as background; the rest is void."""
LEAST_FOUND = 1 / 1024
"""Share of a photo that must be found; a smaller one is no example to go by."""
