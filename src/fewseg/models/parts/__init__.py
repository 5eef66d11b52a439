"""What methods share: back-ends, the base learner, matching, building blocks."""
