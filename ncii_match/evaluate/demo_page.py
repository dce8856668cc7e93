"""The demonstration as one self-contained HTML page: no script, no network, the pictures inside."""

import base64
from statistics import median

from jinja2 import Environment, PackageLoader, StrictUndefined

from ncii_match import __version__
from ncii_match.evaluate.demo import Demonstration
from ncii_match.values import PDQ_THRESHOLD


def render(demonstration: Demonstration) -> str:
    """The page's text."""
    environment = Environment(
        loader=PackageLoader("ncii_match.evaluate"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["base64"] = lambda data: base64.b64encode(data).decode()
    by_photo: dict[str, list[object]] = {}
    for row in demonstration.rows:
        by_photo.setdefault(row.photo, []).append(row)
    return environment.get_template("demo.html.j2").render(
        demo=demonstration,
        banked={name: by_photo[name] for name in demonstration.banked},
        innocent=[row for row in demonstration.rows if not row.banked],
        median_ms=median(row.milliseconds for row in demonstration.rows),
        threshold=PDQ_THRESHOLD,
        version=__version__,
    )
