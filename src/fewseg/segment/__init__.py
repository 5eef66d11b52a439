"""The job behind `fewseg segment`: masks of files, folders and videos in the formats that other tools read."""

from fewseg.segment.jobs import Job, plan
from fewseg.segment.run import SegmentSummary, segment_folder

__all__ = ["Job", "SegmentSummary", "plan", "segment_folder"]
