"""What a request is refused with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Refused(Exception):
    """A status of HTTP, and what was given, what is allowed and what to do."""

    status: int
    text: str
    retry_after: int | None = None
    """Seconds."""
