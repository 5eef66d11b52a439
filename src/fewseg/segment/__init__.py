"""Segments files, folders and videos, and writes masks in the formats that other tools read (`fewseg segment`)."""

from fewseg.segment.large_folder import segment_large_folder
from fewseg.segment.planning import Job, plan
from fewseg.segment.run import segment_folder
from fewseg.segment.summary import SegmentSummary

__all__ = ["Job", "SegmentSummary", "plan", "segment_folder", "segment_large_folder"]
