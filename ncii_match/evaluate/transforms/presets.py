"""Named sets of steps."""

from collections.abc import Mapping
from types import MappingProxyType

from ncii_match.errors import InputError
from ncii_match.evaluate.transforms.steps import TRANSFORMS, Step
from ncii_match.evaluate.transforms.thorn import THORN

_DEFAULT = {
    "jpeg": (75, 40),
    "webp": (70,),
    "avif": (60,),
    "chat app": (1280, 480),
    "forwarded": (2,),
    "smaller": (2, 4),
    "larger": (2,),
    "crop centre": (2, 5),
    "crop bottom": (10,),
    "crop random": (5,),
    "rotate": (2,),
    "straighten": (2,),
    "turn": (90,),
    "mirror": (1,),
    "perspective": (5,),
    "gamma darker": (1.5,),
    "brighter": (30,),
    "more contrast": (25,),
    "more saturation": (60,),
    "hue": (30,),
    "grey": (1,),
    "sepia": (100,),
    "vignette": (45,),
    "blur": (0.3,),
    "sharpen": (100,),
    "noise": (5,),
    "text": (12,),
    "watermark": (20,),
    "logo": (12,),
    "sticker": (20,),
    "black bar": (20,),
    "white border": (5,),
    "black border": (5,),
    "letterbox": (20,),
    "screenshot": (20,),
    "meme caption": (20,),
    "collage": (2,),
}

PRESETS: Mapping[str, tuple[Step, ...]] = MappingProxyType(
    {
        "default": tuple(Step(name, strength) for name, strengths in _DEFAULT.items() for strength in strengths),
        "all": tuple(
            Step(one.name, strength) for one in TRANSFORMS.values() if one not in THORN for strength in one.strengths
        ),
        "perception": tuple(Step(one.name, strength) for one in THORN for strength in one.strengths),
    }
)
"""``default``: what people and apps do, at strengths as they occur. ``all``: every strength of every transformation,
those of ``perception`` aside. ``perception``: the published protocol of Thorn's library of that name, see ``thorn.py``.
"""

REFERENCES: Mapping[str, Step | None] = MappingProxyType(
    {"default": None, "all": None, "perception": Step("perception noop", 1)}
)
"""What distances are measured from: the hash of what this step makes of a picture; None: of the picture as it is."""


def preset(name: str) -> tuple[Step, ...]:
    """The steps of a preset. Raises InputError for a name that there is not."""
    if name not in PRESETS:
        raise InputError(f"there is no preset {name!r}; choose one of {', '.join(PRESETS)}")
    return PRESETS[name]
