"""What a transformation is: a name, strengths from mild to strong, and a repeatable function of pixels."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ncii_match.errors import InputError

Pixels = NDArray[np.uint8]
"""uint8 [h, w, 3], RGB."""

Altered = Pixels | bytes
"""What comes out: pixels, uint8 [h, w, 3] RGB, C-contiguous, never a view of what went in; or, where the encoding is
what alters the picture, the bytes of a file. ``hash_images`` takes either."""

Alter = Callable[[Pixels, float, np.random.Generator], Altered]
"""Pixels (C-contiguous, not to be written to), a strength, and where chance comes from."""

SMALLEST_SIDE = 16
"""Pixels of the shorter side of a picture that can be altered: with less there is nothing to crop or to write on."""


@dataclass(frozen=True, slots=True)
class Transform:
    """One way in which people or programs alter a picture.

    For other strengths: ``dataclasses.replace(transform, strengths=(…))``.

    Attributes
    ----------
    name : str
        Unique.
    unit : str
        Of the strengths; empty where there is none.
    strengths : tuple of float
        From mild to strong, those that ``apply`` takes.
    alter : callable
        Does it, see ``Alter``; call ``apply`` instead.
    kind : str
        The family, for grouping.
    label_format : str
        The label, with ``{}`` where the strength goes.
    about : str
        A sentence: what is done and what the strength means.

    Examples
    --------
    >>> from ncii_match.evaluate.transforms import TRANSFORMS
    >>> TRANSFORMS["crop centre"].label(5)
    'crop centre 5 %'
    >>> TRANSFORMS["mirror"].apply(np.arange(768, dtype=np.uint8).reshape(16, 16, 3), 1, seed=0)[0, 0].tolist()
    [45, 46, 47]
    """

    name: str
    unit: str
    strengths: tuple[float, ...]
    alter: Alter
    kind: str
    label_format: str
    about: str

    def apply(self, pixels: Pixels, strength: float, seed: int) -> Altered:
        """Alter one picture.

        The result depends on the arguments only, not on what was done before or on the thread, and is the same bytes
        each time with the same versions of numpy, OpenCV and Pillow. ``pixels`` is not changed.

        Parameters
        ----------
        pixels : uint8 [h, w, 3]
            RGB, both sides at least 16.
        strength : float
            One of ``strengths``.
        seed : int
            At least 0. Decides what is left to chance: noise, positions, colours, words. The same seed draws the same
            for every strength, so that strengths differ in nothing else; give each picture its own.

        Returns
        -------
        uint8 [h, w, 3] or bytes
            Pixels of another size perhaps, or the bytes of a file.

        Raises
        ------
        InputError
            For anything else.
        """
        original = checked(pixels)
        if strength not in self.strengths:
            allowed = ", ".join(f"{value:g}" for value in self.strengths)
            raise InputError(f"{self.name} has no strength {strength!r}; choose one of {allowed}")
        if seed < 0:
            raise InputError(f"seed is {seed}; it must be at least 0")
        # By name, so that two transformations of one picture do not share their chance.
        chance = np.random.Generator(np.random.PCG64([seed, zlib.crc32(self.name.encode())]))
        altered = self.alter(original, float(strength), chance)
        if isinstance(altered, bytes):
            return altered
        return altered.copy() if np.may_share_memory(altered, original) else np.ascontiguousarray(altered)

    def label(self, strength: float) -> str:
        """The transformation with its strength, for a person: ``crop centre 5 %``."""
        return self.label_format.format(f"{strength:g}")


def checked(pixels: object) -> Pixels:
    """The pixels, C-contiguous, if they are such as can be altered. Raises InputError."""
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        what = f"{pixels.dtype} {list(pixels.shape)}" if isinstance(pixels, np.ndarray) else type(pixels).__name__
        raise InputError(f"pixels is {what}; give uint8 [h, w, 3] RGB, for a grey picture np.dstack([grey] * 3)")
    if min(pixels.shape[:2]) < SMALLEST_SIDE:
        height, width = pixels.shape[:2]
        raise InputError(f"the picture is {width} x {height} pixels; both sides must be at least {SMALLEST_SIDE}")
    return np.ascontiguousarray(pixels)
