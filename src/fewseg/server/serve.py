"""Serving the page: on this machine alone, nothing fetched from elsewhere, nothing but its own files given out."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any

from fewseg.errors import UsageError
from fewseg.models.base import FewShotSegmenter

MAX_FILE = "25mb"
QUEUE = 32
"""Requests that may wait; more are told that the page is busy."""

FONTS = ["system-ui", "Segoe UI", "Roboto", "Helvetica", "Arial", "sans-serif"]
MONO = ["ui-monospace", "Consolas", "monospace"]


def serve(
    model: FewShotSegmenter,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    browser: bool = False,
    wait: bool = True,
) -> Any:
    """Serve the page for a model; returns gradio's Blocks (with `local_url`), at once if not `wait`.

    `port` None takes the first free one from 7860 on. UsageError where gradio is not installed.
    """
    # before gradio is imported: uploads and pictures go into a folder of this run's own, and nothing is reported home
    folder = Path(tempfile.mkdtemp(prefix="fewseg-app-"))
    (folder / "sessions").mkdir()
    os.environ["GRADIO_TEMP_DIR"] = str(folder / "served")
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        from gradio.themes import Default

        from fewseg.server.page import build
    except ImportError as error:
        raise UsageError(f"the page needs gradio ({error}); install it with: pip install 'fewseg[app]'") from error
    page = build(model, root=folder / "sessions")
    weakref.finalize(page, shutil.rmtree, folder, ignore_errors=True)
    page.queue(max_size=QUEUE, default_concurrency_limit=2, api_open=False)
    page.launch(
        server_name=host,
        server_port=port,
        inbrowser=browser,
        share=False,
        quiet=True,
        prevent_thread_lock=True,
        max_file_size=MAX_FILE,
        max_threads=8,
        state_session_capacity=100,
        allowed_paths=[],
        blocked_paths=[str(Path.cwd())],
        footer_links=[],
        enable_monitoring=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        theme=Default(font=FONTS, font_mono=MONO),
        css="footer {display: none !important} #download {width: 100%}",
    )
    if wait:
        page.block_thread()
    return page
