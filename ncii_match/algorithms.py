"""Hash functions by name: what a hash was made with decides what it is compared with."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from ncii_match.errors import InputError
from ncii_match.views import View, Views

PDQ_THRESHOLD = 31
"""Bits within which two PDQ hashes are taken for the same picture, inclusive: the distance that Meta's PDQ paper
recommends, and the default of every deployment we know. The only place where the number is written."""

PDQ_MIN_QUALITY = 50
"""PDQ quality below which a hash says too little to be matched: the same source discards 49 and less."""


@dataclass(frozen=True, slots=True)
class Algorithm:
    """Identity of a hash function. Hashes of different algorithms are never compared.

    Parameters
    ----------
    name : str
        Name of the function: ``pdq``, ``phash``.
    bits : int
        Length of a hash.
    profile : str
        The pixel rules before the transform (docs/glossary.md).
    version : int
        Rises when the same picture gives another hash.

    Examples
    --------
    >>> import ncii_match as nm
    >>> str(nm.PDQ), nm.PDQ.nbytes
    ('pdq-256/full/1', 32)
    >>> nm.PDQ.comparable_with(nm.PDQ_512), nm.PDQ.comparable_with(nm.PHASH)
    (True, False)
    """

    name: str
    bits: int
    profile: str
    version: int

    @property
    def nbytes(self) -> int:
        """Bytes of one packed hash."""
        return self.bits // 8

    def __str__(self) -> str:
        return f"{self.name}-{self.bits}/{self.profile}/{self.version}"

    @classmethod
    def parse(cls, text: str) -> Algorithm:
        """Read the written form, ``pdq-256/full/1``: the inverse of ``str``. Raises InputError."""
        parts = re.fullmatch(r"([a-z][a-z0-9]*)-(\d+)/([a-z0-9]+)/(\d+)", text)
        if parts is None or int(parts[2]) % 64:
            raise InputError(f"{text!r} does not name an algorithm; write it like {PDQ}")
        return cls(parts[1], int(parts[2]), parts[3], int(parts[4]))

    def with_profile(self, profile: str) -> Algorithm:
        """The same function under another profile. Raises InputError for one that it does not have."""
        if profile not in self.profiles:
            raise InputError(f"profile {profile!r} of {self.name} is unknown; choose {' or '.join(self.profiles)}")
        return replace(self, profile=profile)

    @property
    def profiles(self) -> tuple[str, ...]:
        """Names of the profiles that the function has; hashes under either are compared."""
        return ("full", "512") if self.name == "pdq" else (self.profile,)

    @property
    def default_views(self) -> tuple[View, ...]:
        """Default views for a query image: ``Views.ALL``, or ``Views.BORDERS`` with one profile."""
        return Views.ALL if len(self.profiles) > 1 else Views.BORDERS

    def comparable_with(self, other: Algorithm) -> bool:
        """Whether distances between the two mean anything: all but the profile is the same."""
        return (self.name, self.bits, self.version) == (other.name, other.bits, other.version)


PDQ = Algorithm("pdq", 256, "full", 1)
"""PDQ with its tent filter over all pixels: what ``threatexchange`` and pdqhash compute."""

PDQ_512 = Algorithm("pdq", 256, "512", 1)
"""PDQ of the picture first resampled to 512x512 (nearest) when a side is longer: Meta's C++ tool."""

PHASH = Algorithm("phash", 64, "full", 1)
"""The 64-bit DCT hash of ``ImageHash.phash``."""
