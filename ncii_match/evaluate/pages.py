"""Self-contained HTML pages: no script, no network, small pictures inside."""

import base64
from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray
from PIL import Image

from ncii_match.evaluate.encoding import encode_image

THUMBNAIL_QUALITY = 75
"""Of the JPEG: 3 to 6 kB each at 160 pixels."""


def render_page(template: str, filters: Mapping[str, Callable[..., Any]] | None = None, **values: Any) -> str:
    """A page's text.

    Parameters
    ----------
    template : str
        File in ``templates/``. What it is given is escaped; a value that it misses is an error.
    filters : mapping of str to callable, optional
        That the template calls.
    **values
        Of the template.
    """
    environment = Environment(
        loader=PackageLoader("ncii_match.evaluate"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= filters or {}
    return environment.get_template(template).render(**values)


def thumbnail_uri(picture: NDArray[np.uint8] | bytes, side: int) -> str:
    """A small JPEG of a picture as an address that holds it.

    Parameters
    ----------
    picture : uint8 [h, w, 3] or bytes
        RGB, or a file.
    side : int
        Pixels of the longer side at most.

    Examples
    --------
    >>> thumbnail_uri(np.zeros((40, 30, 3), np.uint8), 20)[:23]
    'data:image/jpeg;base64,'
    """
    image = Image.open(BytesIO(picture)) if isinstance(picture, bytes) else Image.fromarray(picture)
    image = image.convert("RGB")
    image.thumbnail((side, side))
    return "data:image/jpeg;base64," + base64.b64encode(encode_image(image, quality=THUMBNAIL_QUALITY)).decode()
