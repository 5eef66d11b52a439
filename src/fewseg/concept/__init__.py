"""Concepts: what was taught of a class by a few photos, in one file (`fewseg teach`)."""

from fewseg.concept.concept import Concept
from fewseg.concept.teach import teach

__all__ = ["Concept", "teach"]
