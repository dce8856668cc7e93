"""How far hashes of JPEG files, decoded the quick way, are from hashes of every pixel in colour; in bits.

python benchmarks/accuracy.py [--quick] keeps the distances of every picture in benchmarks/results/.
"""

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice
from typing import Any

import cases
import numpy as np
import record
from numpy.typing import NDArray

import ncii_match as nm
from ncii_match.decode.image import read_picture
from ncii_match.decode.limits import DecodeLimits
from ncii_match.hashing import hasher
from ncii_match.ingest import PictureHasher, available_cores
from ncii_match.values import Picture

SIZES = ((640, 480), (1024, 768), (1601, 903), (1920, 1080), (4000, 3000))
"""The third is odd on purpose: the last block of a scaled picture is then not a whole one."""

SEED = 2
CROPS, QUICK_CROPS = 6, 1
QUICK_PICTURES = 8

_LIMITS = DecodeLimits()


def _distances(data: bytes, algorithm: nm.Algorithm) -> dict[str, Any]:
    """Bits from the hash of the full colour decode, for each quicker way to the pixels."""
    hasher = PictureHasher(algorithm, nm.Views.UPRIGHT, _LIMITS, "luma")
    colour = read_picture(data, _LIMITS, None, "colour")
    default = hasher.decode(data)
    routes = {
        "default": default,
        "full_luma": read_picture(data, _LIMITS, None, "luma"),
        # The scaled picture hashed as if it were the whole one: what a thumbnail given to any other tool comes to.
        "naive": Picture(default.pixels, *default.pixels.shape[:2]),
    }
    wanted, quality = _hash(colour, algorithm)
    distances = {name: _apart(_hash(picture, algorithm)[0], wanted) for name, picture in routes.items()}
    distances["scale"] = default.scale
    if algorithm == nm.PDQ:
        distances["quality"] = quality
        distances["other_profile"] = _apart(_hash(colour, nm.PDQ_512)[0], wanted)
    return distances


def _hash(picture: Picture, algorithm: nm.Algorithm) -> tuple[NDArray[np.uint8], int]:
    bits, quality = hasher(algorithm).hash_picture(picture, algorithm, nm.Views.UPRIGHT)
    return bits[0], int(quality[0])


def _apart(packed: NDArray[np.uint8], other: NDArray[np.uint8]) -> int:
    return int(np.bitwise_count(packed ^ other).sum())


def _measure(crop: cases.Crop) -> list[dict[str, Any]]:
    """One row for each JPEG quality."""
    pixels, (width, height), box = crop.pixels(), crop.size, [round(side, 3) for side in crop.box]
    about = {"photograph": crop.photograph, "box": box, "width": width, "height": height}
    rows = []
    for quality in cases.JPEG_QUALITIES:
        data = cases.jpeg_bytes(pixels, quality)
        distances = {"pdq": _distances(data, nm.PDQ), "phash": _distances(data, nm.PHASH)}
        rows.append({**about, "jpeg_quality": quality, "bytes": len(data), **distances})
    return rows


def _pictures(quick: bool) -> Iterator[cases.Crop]:
    for size in SIZES:
        every = cases.crops(SEED, size, QUICK_CROPS if quick else CROPS)
        yield from islice(every, QUICK_PICTURES if quick else None)


def main() -> None:
    quick = record.parser(__doc__, "a few pictures of each size").parse_args().quick
    around = record.circumstances()
    with ThreadPoolExecutor(available_cores()) as pool:  # nothing is timed here, so every core may help
        rows = list(chain.from_iterable(pool.map(_measure, _pictures(quick))))
    measured = {"colour_photographs": sorted(cases.colour_photographs()), "pictures": rows}
    print(f"wrote {record.write('accuracy', around, quick, measured)}")


if __name__ == "__main__":
    try:
        main()
    except ImportError as error:
        sys.exit(str(error))
