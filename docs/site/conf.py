"""Sphinx's settings for the site that `make docs` builds; `build.py` beside this file puts the pages together."""

import re
from importlib.metadata import version as installed
from typing import Any

from pygments.lexer import RegexLexer
from pygments.token import Comment, Name, Text

project = "fewseg"
author = "The fewseg developers"
copyright = author
version = release = installed("fewseg")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary"]
myst_enable_extensions = ["deflist", "attrs_inline"]
myst_heading_anchors = 4  # the same anchors as where the Markdown is read in the repository
smartquotes = False  # --option is no dash
highlight_language = "text"

html_theme = "furo"
html_title = f"fewseg {release}"
html_favicon = "_static/icon.svg"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_extra_path = ["extra"]
html_show_copyright = html_show_sphinx = False
html_copy_source = False
pygments_style, pygments_dark_style = "a11y-high-contrast-light", "a11y-high-contrast-dark"

autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
add_module_names = False
maximum_signature_line_length = 70
autosummary_generate = False
nitpick_ignore_regex = [("py:.*", ".*")]  # types in signatures: of torch, or of fewseg's inside


def as_rst(line: str) -> str:
    """A line of a docstring, whose code stands between single backticks, as reStructuredText."""
    parts = re.split(r"(`+[^`]+`+)", line)
    return "".join(
        f"``{part.strip('`')}``" if n % 2 else re.sub(r"([*|\\]|(?<=\w)_(?!\w))", r"\\\1", part)
        for n, part in enumerate(parts)
    )


class Words(RegexLexer):
    """Commands and printed lines word by word, as none may be broken at its hyphens, and comments."""

    tokens = {"root": [(r"#.*", Comment), (r"\S+", Name), (r"\s+", Text)]}  # noqa: RUF012


def setup(app: Any) -> None:
    """Read docstrings as they are written."""
    app.add_lexer("words", Words)
    app.connect("autodoc-process-docstring", lambda *given: given[-1].__setitem__(slice(None), map(as_rst, given[-1])))
