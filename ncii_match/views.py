"""Ways of looking at a picture, each of which gives a hash of its own. Imports nothing from the package."""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar


class View(IntEnum):
    """One way of looking at a picture.

    Bit 0 mirrors it left to right, bit 1 top to bottom, bit 2 then swaps its axes; bit 3 hashes it under the
    algorithm's other profile; bit 4 trims its uniform border first.

    Examples
    --------
    >>> import ncii_match as nm
    >>> nm.View(21).name, nm.View(21).label
    ('TRIMMED_TURN_LEFT', 'turn left, border trimmed')
    """

    UPRIGHT = 0
    MIRROR = 1
    FLIP = 2
    HALF_TURN = 3
    TRANSPOSE = 4
    TURN_LEFT = 5
    TURN_RIGHT = 6
    TRANSVERSE = 7
    OTHER_UPRIGHT = 8
    OTHER_MIRROR = 9
    OTHER_FLIP = 10
    OTHER_HALF_TURN = 11
    OTHER_TRANSPOSE = 12
    OTHER_TURN_LEFT = 13
    OTHER_TURN_RIGHT = 14
    OTHER_TRANSVERSE = 15
    TRIMMED_UPRIGHT = 16 + UPRIGHT
    TRIMMED_MIRROR = 16 + MIRROR
    TRIMMED_FLIP = 16 + FLIP
    TRIMMED_HALF_TURN = 16 + HALF_TURN
    TRIMMED_TRANSPOSE = 16 + TRANSPOSE
    TRIMMED_TURN_LEFT = 16 + TURN_LEFT
    TRIMMED_TURN_RIGHT = 16 + TURN_RIGHT
    TRIMMED_TRANSVERSE = 16 + TRANSVERSE
    OTHER_TRIMMED_UPRIGHT = 16 + OTHER_UPRIGHT
    OTHER_TRIMMED_MIRROR = 16 + OTHER_MIRROR
    OTHER_TRIMMED_FLIP = 16 + OTHER_FLIP
    OTHER_TRIMMED_HALF_TURN = 16 + OTHER_HALF_TURN
    OTHER_TRIMMED_TRANSPOSE = 16 + OTHER_TRANSPOSE
    OTHER_TRIMMED_TURN_LEFT = 16 + OTHER_TURN_LEFT
    OTHER_TRIMMED_TURN_RIGHT = 16 + OTHER_TURN_RIGHT
    OTHER_TRIMMED_TRANSVERSE = 16 + OTHER_TRANSVERSE

    @property
    def orientation(self) -> View:
        """The same orientation of the whole picture, under the algorithm's own profile."""
        return View(self & 7)

    @property
    def other_profile(self) -> bool:
        """Whether the picture is hashed under the algorithm's other profile."""
        return bool(self & 8)

    @property
    def trimmed(self) -> bool:
        """Whether the picture is hashed without its uniform border. One that has none gives ``Status.NO_BORDER``."""
        return bool(self & 16)

    @property
    def untrimmed(self) -> View:
        """The same view of the whole picture."""
        return View(self & 15)

    @property
    def label(self) -> str:
        """For a person: ``turn left``, ``mirror, other profile, border trimmed``."""
        text = self.orientation.name.lower().replace("_", " ")
        text += ", other profile" if self.other_profile else ""
        return text + ", border trimmed" if self.trimmed else text


class Views:
    """Named sets of views.

    Attributes
    ----------
    UPRIGHT : tuple of View
        The picture as it is.
    DIHEDRAL : tuple of View
        The picture in its eight orientations.
    BORDERS : tuple of View
        Those, and those of the picture without its uniform border.
    ALL : tuple of View
        These under both profiles, for an algorithm that has two (PDQ).

    Examples
    --------
    >>> import ncii_match as nm
    >>> [len(views) for views in (nm.Views.UPRIGHT, nm.Views.DIHEDRAL, nm.Views.BORDERS, nm.Views.ALL)]
    [1, 8, 16, 32]
    """

    UPRIGHT: ClassVar[tuple[View, ...]] = (View.UPRIGHT,)
    DIHEDRAL: ClassVar[tuple[View, ...]] = tuple(View(v) for v in range(8))
    BORDERS: ClassVar[tuple[View, ...]] = DIHEDRAL + tuple(View(v) for v in range(16, 24))
    ALL: ClassVar[tuple[View, ...]] = tuple(View)
