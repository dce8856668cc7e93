"""The demonstration: a bank, altered copies and innocent pictures checked against it, one case withdrawn.

It shows what happens, misses included.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image

from ncii_match.bank.store import Bank
from ncii_match.decisions import Decision
from ncii_match.evaluate.encoding import encode_image
from ncii_match.evaluate.everyday import EVERYDAY
from ncii_match.ingest import hash_images
from ncii_match.matcher import Matcher
from ncii_match.outcomes import Outcome

BANKED = ("astronaut.png", "camera.png", "chelsea.png", "coffee.png")
WITHDRAWN = "coffee.png"
THUMBNAIL = 128


@dataclass(frozen=True, slots=True)
class Row:
    """One upload: the photograph behind it, what was done to it, what the matcher said, how long that took."""

    photo: str
    done: str
    banked: bool
    decision: Decision
    milliseconds: float
    thumbnail: bytes

    @property
    def verdict(self) -> str:
        """In one word: found, missed, clear or wrong; ``decision.outcome`` when there was no answer."""
        match self.decision.outcome, self.banked:
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
    """What was done: uploads checked, then those of the withdrawn case checked again."""

    banked: tuple[str, ...]
    withdrawn: str
    rows: tuple[Row, ...]
    after: tuple[Row, ...]
    hashing_ms: float
    publish_ms: float
    withdraw_ms: float

    @property
    def still_matching(self) -> int:
        """Uploads of the withdrawn case that match all the same: there should be none."""
        return sum(row.decision.outcome is Outcome.MATCH for row in self.after)

    def count(self, verdict: str) -> int:
        """Uploads with this verdict."""
        return sum(row.verdict == verdict for row in self.rows)


def uploads_of(path: Path) -> list[tuple[str, bytes]]:
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


def _check(matcher: Matcher, photo: str, done: str, data: bytes, banked: bool) -> Row:
    start = time.perf_counter()
    decision = matcher.check(data)
    took = (time.perf_counter() - start) * 1000
    return Row(photo, done, banked, decision, took, _thumbnail(data))


def _thumbnail(data: bytes) -> bytes:
    image = Image.open(BytesIO(data)).convert("RGB")
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    return encode_image(image, quality=70)


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
            rows = []
            for path in paths:
                uploads = uploads_of(path) if path.name in BANKED else _innocent(path)
                for done, data in uploads:
                    rows.append(_check(matcher, path.name, done, data, path.name in BANKED))
                    advance()
            before_withdrawal = time.perf_counter()
            bank.withdraw(case=f"case-{WITHDRAWN.partition('.')[0]}", reason="the person asked", actor="demo")
            bank.publish()
            withdrawn = time.perf_counter()
            after = []
            for done, data in uploads_of(photos / WITHDRAWN):
                after.append(_check(matcher, WITHDRAWN, done, data, banked=False))
                advance()
    return Demonstration(
        BANKED,
        WITHDRAWN,
        tuple(rows),
        tuple(after),
        (hashed - start) * 1000,
        (published - hashed) * 1000,
        (withdrawn - before_withdrawal) * 1000,
    )


def _innocent(path: Path) -> list[tuple[str, bytes]]:
    image = Image.open(path).convert("RGB")
    return [("the file itself", path.read_bytes()), ("recompressed (JPEG 30)", encode_image(image, quality=30))]
