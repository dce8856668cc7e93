"""Every transformation by its name, steps (a transformation at one strength) and named sets of steps."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from ncii_match.errors import InputError
from ncii_match.evaluate.transforms.filters import COLOUR, DETAIL
from ncii_match.evaluate.transforms.geometry import GEOMETRY
from ncii_match.evaluate.transforms.overlays import FRAMES, OVERLAYS
from ncii_match.evaluate.transforms.perception import THORN
from ncii_match.evaluate.transforms.recompression import RECOMPRESS
from ncii_match.evaluate.transforms.transform import Altered, Pixels, Transform

TRANSFORMS: Mapping[str, Transform] = MappingProxyType(
    {one.name: one for one in (*RECOMPRESS, *GEOMETRY, *COLOUR, *DETAIL, *OVERLAYS, *FRAMES, *THORN)}
)
"""Name to transformation, by family."""


@dataclass(frozen=True, slots=True)
class Step:
    """A transformation at one of its strengths. Raises InputError for one that there is not."""

    transform_name: str
    strength: float

    def __post_init__(self) -> None:
        if self.transform_name not in TRANSFORMS:
            raise InputError(f"there is no transformation {self.transform_name!r}; choose from {', '.join(TRANSFORMS)}")
        if self.strength not in self.transform.strengths:
            allowed = ", ".join(f"{one:g}" for one in self.transform.strengths)
            raise InputError(f"{self.transform_name} has no strength {self.strength!r}; choose one of {allowed}")

    @property
    def transform(self) -> Transform:
        """The transformation."""
        return TRANSFORMS[self.transform_name]

    @property
    def label(self) -> str:
        """For a person: ``crop centre 5 %``. No two steps have the same."""
        return self.transform.label(self.strength)

    def apply(self, pixels: Pixels, seed: int) -> Altered:
        """Alter one picture, see ``Transform.apply``."""
        return self.transform.apply(pixels, self.strength, seed)


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
those of ``perception`` aside. ``perception``: the published protocol of Thorn's library, see ``perception.py``.
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
