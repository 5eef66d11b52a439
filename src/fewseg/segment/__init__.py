"""Segments files, folders and videos, and writes masks in the formats that other tools read (`fewseg segment`)."""

from fewseg.segment.large_folder import segment_large_folder
from fewseg.segment.planning import Job, plan
from fewseg.segment.run import SegmentSummary, segment_folder

__all__ = ["Job", "SegmentSummary", "plan", "segment_folder", "segment_large_folder"]
