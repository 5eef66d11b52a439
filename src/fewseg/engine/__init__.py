"""Engine: the training loop and the evaluation."""
