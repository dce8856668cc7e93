"""Alterations of pictures by which thresholds are chosen: repeatable, each with strengths from mild to strong.

``TRANSFORMS`` has them by name, ``PRESETS`` sets of steps; ``EVERYDAY`` is the walk of the demonstration.
"""

from ncii_match.evaluate.transforms.altered import SMALLEST_SIDE, Altered, Pixels, Transform
from ncii_match.evaluate.transforms.everyday import EVERYDAY, Alteration
from ncii_match.evaluate.transforms.presets import PRESETS, REFERENCES, preset
from ncii_match.evaluate.transforms.recompress import encode
from ncii_match.evaluate.transforms.steps import TRANSFORMS, Step

__all__ = [
    "EVERYDAY",
    "PRESETS",
    "REFERENCES",
    "SMALLEST_SIDE",
    "TRANSFORMS",
    "Alteration",
    "Altered",
    "Pixels",
    "Step",
    "Transform",
    "encode",
    "preset",
]
