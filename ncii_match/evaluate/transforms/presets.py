"""Every transformation by its name, steps (a transformation at one strength) and named sets of steps."""

import pkgutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import MappingProxyType

from ncii_match.errors import InputError
from ncii_match.evaluate.transforms.perception import TRANSFORMS as PERCEPTION
from ncii_match.evaluate.transforms.transform import Altered, Pixels, Transform

FAMILIES = ("recompression", "geometry", "filters", "overlays")
"""Modules whose transformations are listed first, in this order; then come those of new modules, and perception's."""


def _registered() -> Iterator[Transform]:
    """The ``TRANSFORMS`` of every module here: a new one needs no other entry."""
    package, file = __name__.rpartition(".")[0], Path(__file__)
    names = {module.name for module in pkgutil.iter_modules([str(file.parent)])} - {file.stem, "transform"}
    ordered = [*FAMILIES, *sorted(names - {*FAMILIES, "perception"}), "perception"]
    for name in ordered:
        yield from import_module(f"{package}.{name}").TRANSFORMS


TRANSFORMS: Mapping[str, Transform] = MappingProxyType({transform.name: transform for transform in _registered()})
"""Name to transformation, by family."""


@dataclass(frozen=True, slots=True)
class Step:
    """A transformation at one of its strengths.

    Attributes
    ----------
    transform_name : str
        In ``TRANSFORMS``.
    strength : float
        One of the transformation's strengths.

    Raises
    ------
    InputError
        For a transformation or strength that does not exist.

    Examples
    --------
    >>> Step("jpeg", 75).label
    'JPEG quality 75'
    """

    transform_name: str
    strength: float

    def __post_init__(self) -> None:
        if self.transform_name not in TRANSFORMS:
            raise InputError(f"there is no transformation {self.transform_name!r}; choose from {', '.join(TRANSFORMS)}")
        if self.strength not in self.transform.strengths:
            allowed = ", ".join(f"{value:g}" for value in self.transform.strengths)
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
            Step(transform.name, strength)
            for transform in TRANSFORMS.values()
            if transform not in PERCEPTION
            for strength in transform.strengths
        ),
        "perception": tuple(
            Step(transform.name, strength) for transform in PERCEPTION for strength in transform.strengths
        ),
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
    """The steps of a preset. Raises InputError for a name that does not exist.

    Examples
    --------
    >>> [step.label for step in preset("default")[:2]]
    ['JPEG quality 75', 'JPEG quality 40']
    """
    if name not in PRESETS:
        raise InputError(f"there is no preset {name!r}; choose one of {', '.join(PRESETS)}")
    return PRESETS[name]
