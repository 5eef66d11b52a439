"""Speed and memory of fewseg against a plain implementation: `python -m benchmarks --help`."""
