"""Where trained models and runs are kept: saved folders, run directories, the papers' released weights, the hub.

What an evaluation found is saved by `fewseg.evaluation.results`.
"""
