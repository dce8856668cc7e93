"""What Chromium shows of picture files: the outside oracle for everything that decides what a person sees.

Many pictures a launch: a launch takes a second or two, a picture some milliseconds.
"""

import html
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

CHROMIUM = shutil.which("chromium")

needs_chromium = pytest.mark.skipif(
    CHROMIUM is None and not os.environ.get("NCII_MATCH_TEST_CHROMIUM"), reason="chromium is not installed"
)
"""With NCII_MATCH_TEST_CHROMIUM set, as in CI, these tests fail where it is missing."""

_QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-quic", "--hide-scrollbars",
    "--force-device-scale-factor=1", "--force-color-profile=srgb", "--disable-dev-shm-usage",
)  # fmt: skip

ACROSS, DOWN = 5, 5
"""Pictures on a page."""


def shown(files: Sequence[bytes], size: tuple[int, int], suffix: str = "jpg") -> list[np.ndarray]:
    """RGB pixels [h, w, 3] of each file as Chromium shows it, at its own size; what it cannot show is white.

    size : width and height of the largest. Raises RuntimeError when Chromium ends without a picture.
    """
    pages = [files[first : first + ACROSS * DOWN] for first in range(0, len(files), ACROSS * DOWN)]
    return [pixels for page in pages for pixels in _page(page, size, suffix)]


def _page(files: Sequence[bytes], size: tuple[int, int], suffix: str) -> list[np.ndarray]:
    width, height = size
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = []
        for number, data in enumerate(files):
            (folder / f"{number}.{suffix}").write_bytes(data)
            place = f"left:{number % ACROSS * width}px;top:{number // ACROSS * height}px"
            images.append(f'<img src="{html.escape(f"{number}.{suffix}")}" style="position:absolute;{place}">')
        (folder / "page.html").write_text(f'<body style="margin:0;background:white">{"".join(images)}')
        command = [
            str(CHROMIUM), *_QUIET, f"--user-data-dir={folder / 'profile'}", f"--screenshot={folder / 'shown.png'}",
            f"--window-size={ACROSS * width},{DOWN * height}", (folder / "page.html").as_uri(),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, timeout=120, check=False)
        if not (folder / "shown.png").exists():
            raise RuntimeError(f"chromium gave no picture: {done.stderr[-500:].decode(errors='replace')}")
        page = np.asarray(Image.open(BytesIO((folder / "shown.png").read_bytes())).convert("RGB"))
    corners = [(number // ACROSS * height, number % ACROSS * width) for number in range(len(files))]
    return [np.ascontiguousarray(page[top : top + height, left : left + width]) for top, left in corners]
