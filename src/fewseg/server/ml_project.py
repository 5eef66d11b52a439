"""What a project of Label Studio labels, and how: read from its labelling configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fewseg.server.refused import Refused

KINDS = ("BrushLabels", "PolygonLabels")
"""Controls that masks are given to, the first that a project has."""


@dataclass(frozen=True)
class Labelling:
    """The control that gets masks, and the picture that it is of."""

    tag: str
    image: str
    """Name of the Image."""
    key: str
    """Where in a task's data its address is."""
    kind: str
    """As regions call it: brushlabels or polygonlabels."""
    labels: tuple[str, ...]

    @classmethod
    def of(cls, config: Any) -> Labelling:
        """Of a project's XML; Refused where it has no place for masks of a picture."""
        root = _parsed(config)
        images = {tag.get("name"): (tag.get("value") or "").lstrip("$") for tag in root.iter("Image")}
        for kind in KINDS:
            for tag in root.iter(kind):
                to = (tag.get("toName") or "").split(",")[0]
                if tag.get("name") and images.get(to):
                    labels = [label.get("alias") or label.get("value") for label in tag.iter("Label")]
                    return cls(tag.get("name"), to, images[to], kind.lower(), tuple(filter(None, labels)))
        raise Refused(422, f"the project has no {' or '.join(KINDS)} of an Image, which masks could be given to")

    def address(self, task: Any) -> str:
        """Where the photo of a task is; Refused where it says nothing."""
        data = task.get("data") if isinstance(task, dict) else None
        value = data.get(self.key) if isinstance(data, dict) else None
        if not isinstance(value, str) or not value:
            raise Refused(422, f"a task has no picture at {self.key!r} in its data")
        return value


def _parsed(config: Any) -> Any:
    from defusedxml.common import DefusedXmlException
    from defusedxml.ElementTree import ParseError, fromstring

    if not isinstance(config, str):
        raise Refused(400, "the request has no labelling configuration (label_config, or schema)")
    try:
        return fromstring(config)
    except (ParseError, DefusedXmlException, ValueError) as error:
        raise Refused(422, f"the labelling configuration is no XML ({error})") from error
