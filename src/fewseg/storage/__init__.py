"""Where trained models and runs are kept: saved folders, run directories, the papers' released weights, the hub."""
