"""Evaluation: episodes matched and scored, and what was found."""
