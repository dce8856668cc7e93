"""A picture and its altered copies, hashed in every view: the rows from which all figures follow.

A row is one upload: the original itself (``step`` empty) or a copy. ``distances`` are those of its views from the hash
that a bank would hold: the original's, upright, under the algorithm's own profile.
"""

import hashlib
from dataclasses import dataclass

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ncii_match.decode.image import DEFAULT_ROUTE, JpegRoute, Source, bytes_of, is_decoded, read_picture
from ncii_match.decode.limits import DecodeLimits
from ncii_match.errors import DecodeError, InputError
from ncii_match.evaluate.transforms import SMALLEST_SIDE, Pixels, Step
from ncii_match.ingest import PictureHasher
from ncii_match.jobs import hash_columns
from ncii_match.outcomes import TRANSIENT, Status
from ncii_match.values import PDQ_MIN_QUALITY, UNKNOWN_QUALITY, Algorithm, Hashes, View, Views

STRATA = ("photograph", "text-like", "flat", "low quality")

FLAT = 8.0
"""Standard deviation of the grey levels below which a picture is flat."""

PAPER_LEVELS, PAPER_SHARE = 8, 0.4
"""Text-like (a page, a chart, a screen): so many of the pixels are within so many grey levels of the most frequent one,
the paper …"""

EDGE_LEVELS, EDGE_SHARE = 64, 0.015
"""… and so many differ by at least so many grey levels from the pixel to the right or below."""


def stratum(pixels: Pixels, quality: int) -> str:
    """Kind of a picture: flat or text-like by its pixels, else by the quality of its hash.

    Parameters
    ----------
    pixels : uint8 [h, w, 3]
        RGB.
    quality : int
        Of the upright hash.

    Returns
    -------
    str
        One of ``STRATA``.

    Examples
    --------
    >>> stratum(np.full((64, 64, 3), 200, np.uint8), 0)
    'flat'
    """
    if min(pixels.shape[:2]) < 2:
        return "flat"  # a line has no edges to speak of
    grey = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.uint8)
    if float(grey.std()) < FLAT:
        return "flat"
    levels = np.bincount(grey.ravel(), minlength=256)
    paper = int(levels.argmax())
    if levels[max(0, paper - PAPER_LEVELS) : paper + PAPER_LEVELS + 1].sum() >= PAPER_SHARE * grey.size:
        across, down = cv2.absdiff(grey[:-1, 1:], grey[:-1, :-1]), cv2.absdiff(grey[1:, :-1], grey[:-1, :-1])
        if np.count_nonzero(cv2.max(across, down) >= EDGE_LEVELS) >= EDGE_SHARE * across.size:
            return "text-like"
    is_low = quality != UNKNOWN_QUALITY and quality < PDQ_MIN_QUALITY
    return "low quality" if is_low else "photograph"


NO_DISTANCE = 65_535
"""In ``distances``: this view gave no hash (no border to trim, or it could not be hashed)."""

UNALTERED = ""
"""``step`` of the original."""


@dataclass(frozen=True, slots=True)
class TrialSettings:
    """What is done to each picture, and how it is hashed.

    Attributes
    ----------
    steps : tuple of Step
        The alterations.
    algorithm : Algorithm
        The hash.
    views : tuple of View
        In which each upload is hashed.
    seed : int
        What is left to chance follows from it and the picture's id.
    reference : Step or None
        The step among them whose hash a bank would hold; None for the picture as it is.
    witness : Algorithm or None
        A second hash, in ``Views.BORDERS``; None for none.
    jpeg : {"colour", "luma"}
        As for ``hash_images``.
    limits : DecodeLimits
        Of the decoder.

    Raises
    ------
    InputError
        For a reference that is not among the steps.
    """

    steps: tuple[Step, ...]
    algorithm: Algorithm
    views: tuple[View, ...]
    seed: int = 0
    reference: Step | None = None
    witness: Algorithm | None = None
    jpeg: JpegRoute = DEFAULT_ROUTE
    limits: DecodeLimits = DecodeLimits()

    def __post_init__(self) -> None:
        if self.reference is not None and self.reference not in self.steps:
            raise InputError(f"the reference {self.reference.label!r} is not among the steps; put it there")

    def schema(self) -> pa.Schema:
        """Columns of a row."""
        fields = [
            pa.field("id", pa.string(), False),
            pa.field("group", pa.string(), False),
            pa.field("stratum", pa.string(), False),
            pa.field("step", pa.string(), False),
            pa.field("transform", pa.string(), False),
            pa.field("strength", pa.float64()),
            *hash_columns.fields(self.algorithm, self.views),
            _distance_field("distances", len(self.views)),
        ]
        if self.witness is not None:
            hashes, *_ = hash_columns.fields(self.witness, Views.BORDERS)
            fields += [hashes.with_name("witness_hashes"), _distance_field("witness_distances", len(Views.BORDERS))]
        return pa.schema(fields)


def _distance_field(name: str, views: int) -> pa.Field:
    return pa.field(name, pa.list_(pa.field("item", pa.uint16(), False), views), False)


def _distance_column(distances: NDArray[np.uint16]) -> pa.Array:
    field = _distance_field("", distances.shape[1])
    return pa.FixedSizeListArray.from_arrays(pa.array(distances.reshape(-1)), type=field.type)


class Trials:
    """Alters and hashes pictures, one at a time. Safe for many threads."""

    def __init__(self, settings: TrialSettings) -> None:
        self.settings, self._schema = settings, settings.schema()
        limits, jpeg = settings.limits, settings.jpeg
        self._hasher = PictureHasher(settings.algorithm, settings.views, limits, jpeg)
        self._upright = PictureHasher(settings.algorithm, Views.UPRIGHT, limits, jpeg)
        self._witness = (
            None if settings.witness is None else PictureHasher(settings.witness, Views.BORDERS, limits, jpeg)
        )

    def make_rows(self, name: str, group: str, source: Source, *, alone: bool = False) -> pa.RecordBatch:
        """The rows of one picture: itself, then a copy for each step that can be done with it.

        Raises nothing for a bad picture: its row has the status that says why, and is the only one.

        Parameters
        ----------
        name, group : str
            The picture's id, and what it shows.
        source : Source
            Of the picture.
        alone : bool
            Whether nothing else is in hand, so that a copy for which memory does not suffice cannot be made or hashed
            at all. Otherwise the whole picture is then OUT_OF_MEMORY, to be tried again.
        """
        settings = self.settings
        try:
            data, pixels = read_pixels(source, settings.limits)
        except DecodeError as error:
            return self._failed_row(name, group, error.status)
        except MemoryError:
            return self._failed_row(name, group, Status.OUT_OF_MEMORY)
        steps = settings.steps if min(pixels.shape[:2]) >= SMALLEST_SIDE else ()
        seed = picture_seed(settings.seed, name)
        done: list[Step] = []
        hashes = [self._hasher.hash([data])]
        witness_hashes = [] if self._witness is None else [self._witness.hash([data])]
        banked = data
        for step in steps:  # one after the other: a copy of a large picture takes more than its file
            try:
                copy = step.apply(pixels, seed)
            except InputError:
                raise  # ours: the picture is large enough, and the steps are known
            except MemoryError:
                if not alone:
                    return self._failed_row(name, group, Status.OUT_OF_MEMORY)
                continue
            except (ValueError, OSError, ArithmeticError, cv2.error):  # too long for WebP, say
                continue
            done.append(step)
            hashes.append(self._hasher.hash([copy]))
            if self._witness is not None:
                witness_hashes.append(self._witness.hash([copy]))
            if step == settings.reference:
                banked = copy
        if steps and settings.reference is not None and settings.reference not in done:
            return self._failed_row(name, group, Status.UNSUPPORTED_INPUT)
        if not alone and any(TRANSIENT.intersection(part.status.tolist()) for part in (*hashes, *witness_hashes)):
            return self._failed_row(name, group, Status.OUT_OF_MEMORY)
        columns = self._hash_columns(Hashes.concat(hashes), self._upright.hash([banked]))
        if self._witness is not None:
            columns += _witness_columns(Hashes.concat(witness_hashes), self._witness.hash([banked])[:1])
        return self._rows(name, group, stratum(pixels, int(hashes[0].quality[0])), tuple(done), columns)

    def _hash_columns(self, uploads: Hashes, banked: Hashes) -> list[pa.Array]:
        views = self.settings.views
        return [*hash_columns.columns(uploads, views), _distance_column(view_distances(uploads, banked, len(views)))]

    def _failed_row(self, name: str, group: str, status: Status) -> pa.RecordBatch:
        settings, v = self.settings, len(self.settings.views)
        no_hash = Hashes(
            settings.algorithm, np.zeros((v, settings.algorithm.nbytes), np.uint8),
            status=np.full(v, status, np.uint8), source_row=np.zeros(v, np.uint32),
            view=np.array(settings.views, np.uint8),
        )  # fmt: skip
        columns = self._hash_columns(no_hash, no_hash)
        if settings.witness is not None:
            w, nbytes = len(Views.BORDERS), len(Views.BORDERS) * settings.witness.nbytes
            columns += [
                pa.array([bytes(nbytes)], pa.binary(nbytes)),
                _distance_column(np.full((1, w), NO_DISTANCE, np.uint16)),
            ]
        return self._rows(name, group, "", (), columns)

    def _rows(
        self, name: str, group: str, kind: str, steps: tuple[Step, ...], columns: list[pa.Array]
    ) -> pa.RecordBatch:
        n = 1 + len(steps)
        all_columns = [
            pa.array([name] * n, pa.string()),
            pa.array([group] * n, pa.string()),
            pa.array([kind] * n, pa.string()),
            pa.array([UNALTERED, *(step.label for step in steps)], pa.string()),
            pa.array([UNALTERED, *(step.transform_name for step in steps)], pa.string()),
            pa.array([None, *(step.strength for step in steps)], pa.float64()),
            *columns,
        ]
        return pa.RecordBatch.from_arrays(all_columns, schema=self._schema)


def _witness_columns(uploads: Hashes, banked: Hashes) -> list[pa.Array]:
    v = len(Views.BORDERS)
    return [hash_columns.columns(uploads, Views.BORDERS)[0], _distance_column(view_distances(uploads, banked, v))]


def view_distances(uploads: Hashes, banked: Hashes, views: int) -> NDArray[np.uint16]:
    """Bits between each view of each upload and one hash: uint16 [uploads, views], ``NO_DISTANCE`` where there is none.

    Of a banked picture that could not be hashed there is none at all.
    """
    upload_words, banked_words = uploads.bits.view(np.uint64), banked.bits.view(np.uint64)[:1]
    distances: NDArray[np.uint16] = np.bitwise_count(upload_words ^ banked_words).sum(axis=1, dtype=np.uint16)
    distances[uploads.status != Status.OK] = NO_DISTANCE
    if banked.status[0] != Status.OK:
        distances[:] = NO_DISTANCE
    return distances.reshape(-1, views)


def picture_seed(seed: int, name: str) -> int:
    """The seed of a picture: the same whatever other pictures there are."""
    return int.from_bytes(hashlib.sha256(f"{seed}\0{name}".encode()).digest()[:6], "big")


def read_pixels(source: Source, limits: DecodeLimits) -> tuple[Source, Pixels]:
    """What can be hashed, and the pixels that are altered: uint8 [h, w, 3] RGB. Raises DecodeError, and MemoryError."""
    data = source if is_decoded(source) else bytes_of(source, limits)
    pixels = read_picture(data, limits, None, "colour").colours
    return data, np.repeat(pixels[:, :, np.newaxis], 3, axis=2) if pixels.ndim == 2 else np.ascontiguousarray(pixels)
