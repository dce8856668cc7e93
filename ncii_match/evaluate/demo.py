"""The demonstration: a bank, altered copies and innocent pictures checked against it, one case withdrawn.

It shows what happens, misses included.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

from PIL import Image, ImageDraw, ImageEnhance, ImageFont, ImageOps

from ncii_match import __version__
from ncii_match.bank.bank import Bank
from ncii_match.decisions import Decision
from ncii_match.evaluate.encoding import encode_image
from ncii_match.evaluate.pages import render_page, thumbnail_uri
from ncii_match.ingest import hash_images
from ncii_match.matcher import Matcher
from ncii_match.outcomes import Outcome
from ncii_match.values import PDQ_THRESHOLD

BANKED = ("astronaut.png", "camera.png", "chelsea.png", "coffee.png")
WITHDRAWN = "coffee.png"
THUMBNAIL = 128


@dataclass(frozen=True, slots=True)
class CheckedUpload:
    """One upload of the demonstration.

    Attributes
    ----------
    photo : str
        File of the photograph behind it.
    alteration : str
        What was done to it.
    is_banked : bool
        Whether the photograph is in the bank.
    decision : Decision
        Of the matcher.
    milliseconds : float
        That this took.
    thumbnail : str
        A data URI.
    """

    photo: str
    alteration: str
    is_banked: bool
    decision: Decision
    milliseconds: float
    thumbnail: str

    @property
    def verdict(self) -> str:
        """In one word: found, missed, clear or wrong; ``decision.outcome`` when there was no answer."""
        match self.decision.outcome, self.is_banked:
            case Outcome.MATCH, True:
                return "found"
            case Outcome.NO_MATCH, True:
                return "missed"
            case Outcome.NO_MATCH, False:
                return "clear"
            case Outcome.MATCH, False:
                return "wrong"
            case _:
                return self.decision.outcome.name.lower().replace("_", " ")


@dataclass(frozen=True, slots=True)
class Demonstration:
    """What was shown: uploads checked, then those of the withdrawn case checked again.

    Attributes
    ----------
    banked : tuple of str
        Files of the photographs in the bank.
    withdrawn : str
        The one whose case was withdrawn.
    uploads : tuple of CheckedUpload
        All that were checked before that.
    after : tuple of CheckedUpload
        Those of the withdrawn case, checked again.
    hashing_ms, publish_ms, withdraw_ms : float
        Durations.
    """

    banked: tuple[str, ...]
    withdrawn: str
    uploads: tuple[CheckedUpload, ...]
    after: tuple[CheckedUpload, ...]
    hashing_ms: float
    publish_ms: float
    withdraw_ms: float

    @property
    def still_matching(self) -> int:
        """Uploads of the withdrawn case that match all the same: there should be none."""
        return sum(upload.decision.outcome is Outcome.MATCH for upload in self.after)

    def count(self, verdict: str) -> int:
        """Uploads with this verdict."""
        return sum(upload.verdict == verdict for upload in self.uploads)


def altered_files(path: Path) -> list[tuple[str, bytes]]:
    """The file itself, and each everyday alteration of it."""
    image = Image.open(path).convert("RGB")
    return [("the file itself", path.read_bytes())] + [(edit.name, edit.apply(image)) for edit in EVERYDAY]


def total_uploads(photos: Path) -> int:
    """How many pictures a demonstration checks, for a progress bar."""
    innocent = len(pictures_in(photos)) - len(BANKED)
    return (len(BANKED) + 1) * (1 + len(EVERYDAY)) + 2 * innocent


def pictures_in(photos: Path) -> list[Path]:
    """The photographs of a folder, by name."""
    return sorted(path for path in photos.iterdir() if path.suffix in (".png", ".jpg"))


def _check(matcher: Matcher, photo: str, alteration: str, data: bytes, is_banked: bool) -> CheckedUpload:
    start = time.perf_counter()
    decision = matcher.check(data)
    milliseconds = (time.perf_counter() - start) * 1000
    return CheckedUpload(photo, alteration, is_banked, decision, milliseconds, thumbnail_uri(data, THUMBNAIL))


def demonstrate(photos: Path, advance: Callable[[], object] = lambda: None) -> Demonstration:
    """Run it over a folder of photographs. The bank lives in a temporary folder and goes with it."""
    paths = pictures_in(photos)
    with tempfile.TemporaryDirectory(prefix="ncii-match-demo-") as folder, Bank.create(Path(folder) / "bank") as bank:
        hash_images([photos / BANKED[0]])  # compiles or loads the kernels, so that the timings below are of work
        start = time.perf_counter()
        for name in BANKED:
            bank.add(hash_images([photos / name]), case=f"case-{name.partition('.')[0]}", source="demo")
        hashed = time.perf_counter()
        bank.publish()
        published = time.perf_counter()
        with Matcher(bank.path).start() as matcher:  # its processes are there before anything is timed
            uploads = []
            for path in paths:
                is_banked = path.name in BANKED
                for alteration, data in altered_files(path) if is_banked else _innocent_files(path):
                    uploads.append(_check(matcher, path.name, alteration, data, is_banked))
                    advance()
            before_withdrawal = time.perf_counter()
            bank.withdraw(case=f"case-{WITHDRAWN.partition('.')[0]}", reason="the person asked", actor="demo")
            bank.publish()
            withdrawn = time.perf_counter()
            after = []
            for alteration, data in altered_files(photos / WITHDRAWN):
                after.append(_check(matcher, WITHDRAWN, alteration, data, is_banked=False))
                advance()
    return Demonstration(
        BANKED,
        WITHDRAWN,
        tuple(uploads),
        tuple(after),
        (hashed - start) * 1000,
        (published - hashed) * 1000,
        (withdrawn - before_withdrawal) * 1000,
    )


def _innocent_files(path: Path) -> list[tuple[str, bytes]]:
    image = Image.open(path).convert("RGB")
    return [("the file itself", path.read_bytes()), ("recompressed (JPEG 30)", encode_image(image, quality=30))]


@dataclass(frozen=True, slots=True)
class Alteration:
    """One thing that people do to a picture before they upload it again.

    Attributes
    ----------
    name : str
        As a person would say it.
    apply : callable
        Of an RGB Pillow image, which it does not change, to the bytes of a file: encoding is part of what is shown.
    """

    name: str
    apply: Callable[[Image.Image], bytes]


def resize(image: Image.Image, factor: float) -> Image.Image:
    """Make both sides longer or shorter by a factor."""
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return image.resize(size, Image.Resampling.LANCZOS)


def crop(image: Image.Image, share: float) -> Image.Image:
    """Cut this share off each side."""
    across, down = round(image.width * share), round(image.height * share)
    return image.crop((across, down, image.width - across, image.height - down))


def grey(image: Image.Image) -> Image.Image:
    """Take the colours away."""
    return image.convert("L").convert("RGB")


def write_on(image: Image.Image, text: str) -> Image.Image:
    """Write a line of text across the lower part, white with a dark edge."""
    written = image.copy()
    size = max(8, image.width // 12)
    ImageDraw.Draw(written).text(
        (image.width * 0.05, image.height * 0.85), text, "white", ImageFont.load_default(size),
        stroke_width=max(1, size // 16), stroke_fill="black",
    )  # fmt: skip
    return written


def _altered(*steps: Callable[[Image.Image], Image.Image], quality: int = 88) -> Callable[[Image.Image], bytes]:
    """Steps one after the other, then saved as JPEG."""

    def apply(image: Image.Image) -> bytes:
        for step in steps:
            image = step(image)
        return encode_image(image, quality=quality)

    return apply


_MIRROR, _LEFT, _HALF_TURN = (
    lambda image, turn=turn: image.transpose(turn)
    for turn in (Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180)
)

EVERYDAY = (
    Alteration("recompressed (JPEG 30)", _altered(quality=30)),
    Alteration("saved as WebP", partial(encode_image, kind="WEBP", quality=70)),
    Alteration("saved as AVIF", partial(encode_image, kind="AVIF", quality=60)),
    Alteration("half the size", _altered(partial(resize, factor=0.5))),
    Alteration("three times the size", _altered(partial(resize, factor=3.0))),
    Alteration("turned left", _altered(_LEFT)),
    Alteration("turned upside down", _altered(_HALF_TURN)),
    Alteration("mirrored", _altered(_MIRROR)),
    Alteration("grey", _altered(grey)),
    Alteration("brightened by 30 %", _altered(lambda image: ImageEnhance.Brightness(image).enhance(1.3))),
    Alteration("text written on it", _altered(partial(write_on, text="look at this"))),
    Alteration("mirrored, half size, grey", _altered(_MIRROR, partial(resize, factor=0.5), grey, quality=60)),
    Alteration("cropped by 0.5 % a side", _altered(partial(crop, share=0.005))),
    Alteration("cropped by 10 % a side", _altered(partial(crop, share=0.1))),
    Alteration(
        "white border of 10 %", _altered(lambda image: ImageOps.expand(image, round(max(image.size) * 0.1), "white"))
    ),
    Alteration("tilted by 10 degrees", _altered(lambda image: image.rotate(10, Image.Resampling.BICUBIC))),
)
"""From what a hash hardly notices to what PDQ does not survive."""


def render(demonstration: Demonstration) -> str:
    """The demonstration as one self-contained HTML page; its text."""
    uploads = demonstration.uploads
    return render_page(
        "demo.html.j2",
        demo=demonstration,
        banked={name: [upload for upload in uploads if upload.photo == name] for name in demonstration.banked},
        innocent=[upload for upload in uploads if not upload.is_banked],
        median_ms=median(upload.milliseconds for upload in uploads),
        threshold=PDQ_THRESHOLD,
        version=__version__,
    )
