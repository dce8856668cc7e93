"""How much of a picture from a stranger is accepted, all of it checked before any pixel is decoded."""

from dataclasses import dataclass

from ncii_match.errors import DecodeError, InputError
from ncii_match.outcomes import Status

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
"""Every format that can be allowed."""


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """Bounds on one input, all inclusive.

    Parameters
    ----------
    max_bytes : int
        Length of the file; 128 MiB by default.
    max_pixels : int
        Height x width as the header states them; 128 million by default, so that a 108-megapixel telephone picture
        passes. Memory for one picture beside its file, measured in bytes for each pixel: 4 for colour, 1 for grey, 8
        with transparency and as AVIF, 12 as WebP; a progressive JPEG takes 3 to 6 more for its coefficients. By its
        luma alone (``jpeg="luma"``) another JPEG takes 1, less than 0.1 at a fraction of its size. Lower the limit
        where that is too much.
    max_side : int
        Height and width each; 65,535 by default, the most that a JPEG can have.
    max_frames : int
        Frames of an animation or pages of a TIFF, although only the first is decoded.
    formats : frozenset of str
        Names of the formats that are decoded at all, recognised by content.

    Raises
    ------
    InputError
        For a bound below 1 and for a format that is not known.

    Examples
    --------
    >>> import ncii_match as nm
    >>> limits = nm.DecodeLimits(max_bytes=3)
    >>> nm.Status(nm.hash_images([b"four"], limits=limits).status[0]).name
    'TOO_MANY_BYTES'
    """

    max_bytes: int = 128 * 1024 * 1024
    max_pixels: int = 128_000_000
    max_side: int = 65_535
    max_frames: int = 10_000
    formats: frozenset[str] = frozenset(FORMATS)

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_pixels", "max_side", "max_frames"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise InputError(f"{name} is {value!r}; it must be a whole number of at least 1")
        unknown = frozenset(self.formats) - set(FORMATS)
        if unknown:
            raise InputError(f"unknown formats {', '.join(sorted(unknown))}; known are {', '.join(FORMATS)}")

    def check_pixels(self, width: int, height: int) -> None:
        """Raise DecodeError for a picture of more pixels than allowed."""
        if width * height > self.max_pixels or max(width, height) > self.max_side:
            raise DecodeError(
                Status.TOO_MANY_PIXELS,
                f"{width:,} x {height:,}; the limit is {self.max_pixels:,} pixels, {self.max_side:,} a side.",
            )
