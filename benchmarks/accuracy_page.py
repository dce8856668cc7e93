"""``docs/accuracy.md`` from one run of ``accuracy.py``."""

from collections.abc import Callable, Iterable
from statistics import mean, median
from typing import Any

import page
import thresholds_page

Picture = dict[str, Any]

GOOD_QUALITY = 80
"""PDQ quality, inclusive, from which Meta states how far apart two hashes of one picture may be."""


def _p99(values: list[int]) -> int:
    """The smallest distance that 99 % of the pictures do not exceed."""
    return sorted(values)[max(0, -(-99 * len(values) // 100) - 1)]


def _row(values: list[int]) -> tuple[str, ...]:
    if not values:
        return ("0", "", "", "", "")
    return (str(len(values)), f"{median(values):g}", f"{mean(values):.2f}", str(_p99(values)), str(max(values)))


_COLUMNS = ("files", "median", "mean", "99 %", "most")


def _sizes(run: dict[str, Any]) -> list[tuple[str, list[Picture]]]:
    sizes = dict.fromkeys((one["width"], one["height"]) for one in run["pictures"])
    return [
        (
            f"{width:,} x {height:,}",
            [one for one in run["pictures"] if (one["width"], one["height"]) == (width, height)],
        )
        for width, height in sizes
    ]


def _distances(pictures: Iterable[Picture], algorithm: str, way: str = "default") -> list[int]:
    return [one[algorithm][way] for one in pictures]


def _goals(run: dict[str, Any]) -> list[page.Goal]:
    promised = []
    for label, pictures in _sizes(run):
        pdq = _distances(pictures, "pdq")
        promised += [
            page.at_most(f"PDQ, {label}: median", 0, median(pdq), " bits"),
            page.at_most(f"PDQ, {label}: 99 %", 4, _p99(pdq), " bits"),
            page.at_most(f"pHash, {label}: 99 %", 2, _p99(_distances(pictures, "phash")), " bits"),
        ]
    return promised


def _groups(run: dict[str, Any]) -> dict[str, Callable[[Picture], bool]]:
    colour = run["colour_photographs"]
    return {
        "all": lambda _: True,
        "colour photographs": lambda one: one["photograph"] in colour,
        f"quality {GOOD_QUALITY} or more": lambda one: one["pdq"]["quality"] >= GOOD_QUALITY,
        f"quality below {GOOD_QUALITY}": lambda one: one["pdq"]["quality"] < GOOD_QUALITY,
    }


def _pdq(run: dict[str, Any]) -> list[str]:
    by_group = [
        (label, group, f"1/{pictures[0]['pdq']['scale']}", *_row(_distances(filter(belongs, pictures), "pdq")))
        for label, pictures in _sizes(run)
        for group, belongs in _groups(run).items()
    ]
    qualities = sorted({one["jpeg_quality"] for one in run["pictures"]})
    by_quality = [
        (label, str(quality), *_row(_distances((one for one in pictures if one["jpeg_quality"] == quality), "pdq")))
        for label, pictures in _sizes(run)
        for quality in qualities
    ]
    return [
        *page.section("PDQ"),
        *page.prose(
            "In bits out of 256. *Decoded at* is the fraction of its size at which the file is decoded. *Quality* "
            "is PDQ's own figure for how much there is to see; pictures of low quality have coefficients near the "
            "median, which a grey level more or less pushes over it. Grey photographs have no colour to lose, so "
            "the colour ones are counted on their own as well."
        ),
        *page.table(("size", "which", "decoded at", *_COLUMNS), by_group, words=2),
        *page.prose("By the quality at which the JPEG file was saved:"),
        *page.table(("size", "JPEG quality", *_COLUMNS), by_quality),
    ]


_WAYS = {
    "default": "ncii_match",
    "full_luma": "luma plane at full size",
    "naive": "scaled picture taken for the whole",
}


def _ways(run: dict[str, Any], algorithm: str) -> list[str]:
    rows = [
        (label, way, *_row(_distances(pictures, algorithm, name)))
        for label, pictures in _sizes(run)
        for name, way in _WAYS.items()
    ]
    return page.table(("size", "way", *_COLUMNS), rows, words=2)


def _profiles(run: dict[str, Any]) -> list[str]:
    rows = [(label, *_row(_distances(pictures, "pdq", "other_profile"))) for label, pictures in _sizes(run)]
    return [
        *page.section("The two profiles of PDQ"),
        *page.prose(
            "Profile `full` smooths all pixels, as `threatexchange` does; profile `512` first picks 512 x 512 of "
            "them, as Meta's C++ tool does. From the very same pixels they differ by this much, which is why a "
            "search can look under both (`Views.ALL`):"
        ),
        *page.table(("size", *_COLUMNS), rows),
    ]


def text(run: dict[str, Any], thresholds: dict[str, Any]) -> str:
    """The whole page."""
    files = run["pictures"]
    photographs, qualities = ({one[name] for one in files} for name in ("photograph", "jpeg_quality"))
    pictures, in_colour = len(files) // len(qualities) // len(_sizes(run)), photographs & set(run["colour_photographs"])
    listed = ", ".join(map(str, sorted(qualities)))
    lines = [
        *page.head("Accuracy", "accuracy.py", run),
        *page.prose(
            "From the same pixels, ncii_match gives the bits that the reference gives, except where the "
            "reference's own rounding decides. The rule: a bit of PDQ says whether a coefficient is above the median "
            "of 256, which spread over hundreds. Where a coefficient is within 0.01 of the median in exact "
            "arithmetic, the float32 sums of `pdqhash` fall to either side, and its bit may differ. Many coefficients "
            "are equal in flat, evenly shaded and symmetric pictures, and in those with a side of 8 or 16 pixels, "
            "whose samples repeat (up to 27 bits seen). Elsewhere it is one or two bits in fewer than one of a "
            "thousand photographs, of any quality. `tests/test_hashing.py` holds 10,000 pictures to it."
        ),
        *page.prose(
            "By default JPEG files are decoded in colour, every pixel: their hashes are those of the opened file's "
            'pixels, 0 bits away. This page is about the quicker way, `jpeg="luma"`: only their luma is decoded, at a '
            "fraction of the size where the picture is large. How many bits of the hash does that change in ordinary "
            "files? Of files that are made to deceive it sees nothing (docs/decisions/0020): it is for files that "
            "nobody hostile has made."
        ),
        *page.prose(
            f"Of each size there are {pictures} pictures, random parts of {len(photographs)} photographs "
            f"({len(in_colour)} of them in colour), and each is saved as {len(qualities)} JPEG files, of quality "
            f"{listed}. The files of one picture resemble each other, so their number says less than that many "
            "pictures would. *99 %* is the distance that 99 of 100 files do not exceed."
        ),
        *page.section("Goals"),
        *page.goals(_goals(run)),
        *page.prose(
            "Where the goal for PDQ is missed, the luma plane at full size misses it as well (see below): most of "
            "those files are of one photograph with dark, saturated colours, which are clipped on the way to RGB. "
            "Decoding the colours is the only remedy, and the default does it."
        ),
        *_pdq(run),
        *page.section("Other ways to decode less"),
        *page.prose(
            "The same files, by three ways to the pixels. The luma plane at full size differs from the colours "
            "only by what turning the file's luma and chroma into RGB rounds off, and clips where a colour is out "
            "of range; what is left is the price of the smaller size. Taking the scaled picture for the whole one, "
            "which is what hashing a thumbnail comes to, moves every sampling point; ncii_match keeps them where "
            "they are in the full picture."
        ),
        *_ways(run, "pdq"),
        *page.section("pHash"),
        *page.prose("In bits out of 64, by the same three ways."),
        *_ways(run, "phash"),
        *_profiles(run),
        *page.prose(
            "What views, profiles and a witness change in what is found is measured by `bench_thresholds.py` on other "
            f"pictures, altered copies of public photographs (commit {thresholds['commit']}); more of it is in "
            "[threshold-figures.md](threshold-figures.md)."
        ),
        *thresholds_page.looks(thresholds["findings"], thresholds["findings"]["question"]["threshold"]),
        *thresholds_page.witness(thresholds),
        *page.foot("accuracy.py", run),
    ]
    return "\n".join(lines)
