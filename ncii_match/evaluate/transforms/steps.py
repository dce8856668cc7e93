"""Every transformation by its name, and a step: one of them at one strength."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from ncii_match.errors import InputError
from ncii_match.evaluate.transforms.altered import Altered, Pixels, Transform
from ncii_match.evaluate.transforms.colour import COLOUR
from ncii_match.evaluate.transforms.detail import DETAIL
from ncii_match.evaluate.transforms.frames import FRAMES
from ncii_match.evaluate.transforms.geometry import GEOMETRY
from ncii_match.evaluate.transforms.overlays import OVERLAYS
from ncii_match.evaluate.transforms.recompress import RECOMPRESS
from ncii_match.evaluate.transforms.thorn import THORN

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
