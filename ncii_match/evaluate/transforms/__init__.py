"""Alterations of pictures by which thresholds are chosen: repeatable, each with strengths from mild to strong.

``TRANSFORMS`` has them by name, ``PRESETS`` sets of steps.
"""

from ncii_match.evaluate.encoding import encode
from ncii_match.evaluate.transforms.presets import PRESETS, REFERENCES, TRANSFORMS, Step, preset
from ncii_match.evaluate.transforms.transform import SMALLEST_SIDE, Altered, Pixels, Transform

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
