"""Pictures to the bytes of a file."""

from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def encode_image(image: Image.Image, kind: str = "JPEG", quality: int = 88) -> bytes:
    """A Pillow image as the bytes of a file.

    Parameters
    ----------
    image : PIL.Image.Image
        Of a mode that the format takes.
    kind : {"JPEG", "WEBP", "AVIF", "PNG"}
        The format.
    quality : int
        1 to 100; PNG ignores it.
    """
    stream = BytesIO()
    image.save(stream, kind, **({} if kind == "PNG" else {"quality": quality}))
    return stream.getvalue()


def encode(pixels: NDArray[np.uint8], kind: str = "JPEG", quality: int = 88) -> bytes:
    r"""As ``encode_image``, of uint8 [h, w, 3] RGB.

    Examples
    --------
    >>> encode(np.zeros((8, 8, 3), np.uint8), "PNG")[:8]
    b'\x89PNG\r\n\x1a\n'
    """
    return encode_image(Image.fromarray(pixels), kind, quality)
