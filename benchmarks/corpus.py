"""The pictures on which match thresholds are evaluated: disjoint crops of public photographs, and drawn pictures.

python benchmarks/corpus.py [--write FOLDER]   fetches what is missing, counts, and says which photographs are nearest

``corpus()`` gives at least 2,000 crops of photographs, ``drawn()`` at least 300 pictures of each other stratum. Crops
of one photograph can look alike (sky beside sky): they have one ``group``, so that a false-positive rate can leave out
pairs within a group.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from time import perf_counter

import cases
import numpy as np
from corpus_drawn import FLAT_KINDS, TEXT_KINDS, Drawing
from corpus_sources import CorpusError, Photograph, Pixels, photographs
from PIL import Image

import ncii_match as nm
from ncii_match.evaluate.transforms import encode
from ncii_match.values import PDQ_MIN_QUALITY

SIDES = (512, 448, 384, 320, 256, 224, 192)
"""Crops are square. Each photograph has the longest side here that gives ``CAP`` of them, else the shortest."""

CAP = 128
"""Crops of one photograph, at most, so that the large ones do not swamp the rest."""

STRATA = ("photograph", "text-like", "flat")

PAPER_LEVELS, PAPER_SHARE = 8, 0.4
"""Text-like: so many of the pixels are within so many grey levels of the most frequent level, the paper …"""

EDGE_LEVELS, EDGE_SHARE = 64, 0.015
"""… and so many of the pixels differ by at least so many grey levels from the pixel to the right or below."""

DRAWN_EACH = 80
"""Drawn pictures of each kind."""

_JPEG_QUALITY = 95


@dataclass(frozen=True, slots=True)
class Crop:
    """Part of a photograph, or a whole drawing (``is_drawn``). Measures are in pixels."""

    source: Photograph | Drawing
    left: int
    top: int
    width: int
    height: int
    stratum: str

    @property
    def id(self) -> str:
        return f"{self.source.id}#{self.left},{self.top}"

    @property
    def group(self) -> str:
        return self.source.group

    @property
    def is_drawn(self) -> bool:
        return isinstance(self.source, Drawing)

    @property
    def name(self) -> str:
        """The name of its file: the group, ``--``, then its source, place and stratum. ``group_of`` reads the group."""
        tail = "_".join((self.source.id, str(self.left), str(self.top), self.stratum))
        return f"{self.group}--{tail}".replace("/", "+") + (".png" if self.is_drawn else ".jpg")

    def pixels(self) -> Pixels:
        """RGB uint8 [height, width, 3], made anew at each call."""
        whole = self.source.pixels()
        return np.ascontiguousarray(whole[self.top : self.top + self.height, self.left : self.left + self.width])

    def file(self) -> bytes:
        """A PNG file of a drawing; of anything else a JPEG file of quality 95, with halved chroma (4:2:0)."""
        return encode(self.pixels(), "PNG" if self.is_drawn else "JPEG", _JPEG_QUALITY)


def corpus(minimum: int = 2000, *, among: Sequence[Photograph] | None = None) -> list[Crop]:
    """Disjoint crops of all photographs (or of those given), in the order of the table, then row by row.

    Parameters
    ----------
    minimum
        How many crops of stratum ``photograph`` there must be, inclusive.
    among
        Some of ``photographs()``; ``None``: all.

    Raises
    ------
    CorpusError
        A photograph cannot be had or is not the one listed, or there are fewer crops than ``minimum``.
    """
    crops: list[Crop] = []
    for photograph in photographs() if among is None else among:
        whole, (side, corners) = photograph.pixels(), places_in(*photograph.size())
        cuts = [whole[y : y + side, x : x + side] for x, y in corners]
        labels = strata([np.ascontiguousarray(cut) for cut in cuts])
        crops += [Crop(photograph, x, y, side, side, label) for (x, y), label in zip(corners, labels, strict=True)]
    have = sum(crop.stratum == "photograph" for crop in crops)
    if have < minimum:
        raise CorpusError(f"there are {have} crops of stratum photograph, at least {minimum} were asked for")
    return crops


def drawn(each: int = DRAWN_EACH) -> list[Crop]:
    """The first ``each`` pictures of every drawn kind that are, by ``strata``, what they were drawn to be."""
    crops: list[Crop] = []
    for kind in (*TEXT_KINDS, *FLAT_KINDS):
        wanted, count = "text-like" if kind in TEXT_KINDS else "flat", 0
        for number in range(4 * each):
            pixels = Drawing(kind, number).pixels()
            if count < each and strata([pixels]) == [wanted]:
                crops.append(Crop(Drawing(kind, number), 0, 0, pixels.shape[1], pixels.shape[0], wanted))
                count += 1
            if count == each:
                break
        if count < each:
            raise CorpusError(
                f"{count} of the first {4 * each} pictures of kind {kind} are {wanted}, {each} are wanted"
            )
    return crops


def places_in(width: int, height: int) -> tuple[int, list[tuple[int, int]]]:
    """Side, and left and top of each crop: a grid in the middle; of more than ``CAP``, every so-manieth."""
    side = next((side for side in SIDES if (width // side) * (height // side) >= CAP), SIDES[-1])
    across, down = width // side, height // side
    left, top = (width - across * side) // 2, (height - down * side) // 2
    grid = [(left + x * side, top + y * side) for y in range(down) for x in range(across)]
    count = min(CAP, len(grid))
    return side, [grid[number * len(grid) // count] for number in range(count)]


def strata(pictures: Sequence[Pixels]) -> list[str]:
    """The stratum of each picture, RGB uint8 [h, w, 3], by its pixels alone.

    ``flat``: its PDQ quality is below the least at which a hash is matched. ``text-like``: most of it is paper, and it
    has hard edges (see ``PAPER_SHARE``, ``EDGE_SHARE``); a roof before an even sky, or trunks in a dark wood, are that
    too. ``photograph``: all else.
    """
    hashes = nm.hash_images(pictures, algorithm=nm.PDQ, views=nm.Views.UPRIGHT)
    if not np.array_equal(hashes.source_row, np.arange(len(pictures))) or np.any(hashes.status != nm.Status.OK):
        raise CorpusError("a picture of the corpus has no hash")
    pairs = zip(pictures, hashes.quality, strict=True)
    return ["flat" if quality < PDQ_MIN_QUALITY else _text_or_photograph(picture) for picture, quality in pairs]


def _text_or_photograph(picture: Pixels) -> str:
    luma = np.asarray(Image.fromarray(picture).convert("L"), np.int16)
    paper = np.abs(luma - np.bincount(luma.ravel(), minlength=256).argmax()) <= PAPER_LEVELS
    across, down = np.abs(np.diff(luma, axis=1)), np.abs(np.diff(luma, axis=0))
    edges = np.maximum(across[:-1], down[:, :-1]) >= EDGE_LEVELS
    return "text-like" if paper.mean() >= PAPER_SHARE and edges.mean() >= EDGE_SHARE else "photograph"


def write(folder: Path, crops: Iterable[Crop]) -> list[Path]:
    """Write each as a file into a folder, which is made if it is not there; the paths, in the same order."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for crop in crops:
        paths.append(folder / crop.name)
        paths[-1].write_bytes(crop.file())
    return paths


def group_of(path: Path) -> str:
    """The group of a file that ``write`` has written, from its name."""
    return path.name.partition("--")[0].replace("+", "/")


def nearest(wholes: Sequence[tuple[str, Pixels]]) -> list[tuple[int, str, str]]:
    """Every pair of whole pictures, the nearest first: PDQ distance in bits, the second in all eight orientations."""
    bits = nm.hash_images([pixels for _, pixels in wholes], algorithm=nm.PDQ, views=nm.Views.DIHEDRAL)
    by_picture = [bits.bits[bits.source_row == row] for row in range(len(wholes))]
    pairs = []
    for row, other in combinations(range(len(wholes)), 2):
        apart = np.bitwise_count(by_picture[row][0] ^ by_picture[other]).sum(axis=1).min()
        pairs.append((int(apart), wholes[row][0], wholes[other][0]))
    return sorted(pairs)


def _report(crops: list[Crop]) -> None:
    for package in dict.fromkeys(photograph.package for photograph in photographs()):
        mine = [photograph for photograph in photographs() if photograph.package == package]
        sizes = [photograph.size() for photograph in mine]
        counts = Counter(crop.stratum for crop in crops if crop.source in mine)
        megapixels = sum(width * height for width, height in sizes) / 1e6
        listing = ", ".join(f"{counts[stratum]} {stratum}" for stratum in STRATA)
        print(
            f"{package.registry:7} {package.name} {package.version}: {len(mine)} files, {megapixels:.1f} MP; {listing}"
        )
    print(f"sides {dict(sorted(Counter(crop.width for crop in crops if not crop.is_drawn).items()))}")
    print(f"made: {dict(Counter(crop.stratum for crop in crops if crop.is_drawn))}")
    total, groups = Counter(crop.stratum for crop in crops), {crop.group for crop in crops if not crop.is_drawn}
    print(f"all: {dict(total)}; {len(groups)} different photographs")
    wholes = [(photograph.id, photograph.pixels()) for photograph in photographs()]
    fixtures = [(f"fixture {name}", pixels) for name, pixels in cases.photographs()]
    for apart, name, other in nearest([*wholes, *fixtures])[:8]:
        print(f"{apart} bits: {name}, {other}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="write every picture into this folder")
    folder = parser.parse_args().write
    start = perf_counter()
    crops = corpus()
    middle = perf_counter()
    crops += drawn()
    print(f"photographs {middle - start:.1f} s, drawn pictures {perf_counter() - middle:.1f} s")
    if folder:
        start = perf_counter()
        write(folder, crops)
        print(f"written in {perf_counter() - start:.1f} s")
    _report(crops)


if __name__ == "__main__":
    try:
        main()
    except CorpusError as error:
        sys.exit(str(error))
