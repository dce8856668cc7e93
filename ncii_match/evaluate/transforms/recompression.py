"""Saving a picture again, as programs and chat apps do."""

from io import BytesIO

import cv2
import numpy as np
from PIL import Image

from ncii_match.evaluate.encoding import encode
from ncii_match.evaluate.transforms.transform import Pixels, Transform

AVIF_SPEED = 9
"""Of 0 to 10. Pillow's own 6 takes ten times as long (250 ms for 640 x 480) for a file that is a fifth smaller."""

CHAT_QUALITY = 75
"""JPEG quality of chat apps, roughly; none of them says."""


def decoded(data: bytes) -> Pixels:
    """The pixels of a file that was written here."""
    return np.asarray(Image.open(BytesIO(data)).convert("RGB"))


def avif(pixels: Pixels, quality: int) -> bytes:
    """Save as AVIF, in a quick way, on this thread: the encoder's own would compete with those that call this."""
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, "AVIF", quality=quality, speed=AVIF_SPEED, max_threads=1)
    return stream.getvalue()


def fit(pixels: Pixels, longer: int) -> Pixels:
    """Make the longer side this long, if it is longer."""
    height, width = pixels.shape[:2]
    if max(height, width) <= longer:
        return pixels
    factor = longer / max(height, width)
    size = (max(8, round(width * factor)), max(8, round(height * factor)))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)


def chat(pixels: Pixels, longer: int) -> bytes:
    """Send it through a chat app: made smaller, saved as JPEG."""
    return encode(fit(pixels, longer), quality=CHAT_QUALITY)


def forwarded(pixels: Pixels, times: int) -> bytes:
    """Send it from app to app: each makes it a fifth smaller than it was, and saves it as JPEG."""
    data = b""
    for sent in range(times):
        if sent:
            pixels = decoded(data)
        data = chat(pixels, max(64, round(max(pixels.shape[:2]) * 0.8)))
    return data


KIND = "recompression"

TRANSFORMS = (
    Transform(
        "jpeg", "quality", (95, 85, 75, 60, 40, 20, 10, 5),
        lambda p, s, _: encode(p, quality=int(s)),
        KIND, "JPEG quality {}", "Saved as JPEG with this quality of 1 to 100, colours at half the resolution.",
    ),
    Transform(
        "webp", "quality", (90, 70, 40, 20, 5),
        lambda p, s, _: encode(p, "WEBP", int(s)),
        KIND, "WebP quality {}", "Saved as lossy WebP with this quality of 0 to 100.",
    ),
    Transform(
        "avif", "quality", (80, 60, 40, 20),
        lambda p, s, _: avif(p, int(s)),
        KIND, "AVIF quality {}", "Saved as AVIF with this quality of 0 to 100.",
    ),
    Transform(
        "chat app", "pixels", (1600, 1280, 800, 480, 320),
        lambda p, s, _: chat(p, int(s)),
        KIND, "chat app, {} pixels",
        "Sent through a chat app: the longer side brought down to this many pixels, then JPEG quality 75. A smaller "
        "picture is only saved again.",
    ),
    Transform(
        "forwarded", "times", (2, 3, 5),
        lambda p, s, _: forwarded(p, int(s)),
        KIND, "forwarded {} times",
        "Sent from app to app this often; each makes both sides a fifth shorter and saves as JPEG quality 75.",
    ),
)  # fmt: skip
"""Those whose result is the bytes of a file."""
