"""Alterations of pictures by which thresholds are chosen: repeatable, each with strengths from mild to strong.

``TRANSFORMS`` has them by name, ``PRESETS`` sets of steps.
"""

from ncii_match.evaluate.encoding import encode
from ncii_match.evaluate.transforms.altered import SMALLEST_SIDE, Altered, Pixels, Transform
from ncii_match.evaluate.transforms.presets import PRESETS, REFERENCES, preset
from ncii_match.evaluate.transforms.steps import TRANSFORMS, Step

__all__ = [
    "PRESETS",
    "REFERENCES",
    "SMALLEST_SIDE",
    "TRANSFORMS",
    "Altered",
    "Pixels",
    "Step",
    "Transform",
    "encode",
    "preset",
]
