"""How fast hashing is, against the peers and against the machine's own limits.

python benchmarks/bench_hashing.py [--quick]     measures, and keeps every sample in benchmarks/results/
pytest benchmarks --benchmark-disable            runs each case once and checks what comes out, never a time
"""

import atexit
import hashlib
import operator
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from io import BytesIO
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

import cases
import numpy as np
import pytest
import record
from contest import Contest, Run
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin

import ncii_match as nm
from ncii_match.decode.limits import DecodeLimits
from ncii_match.hashing import pdq
from ncii_match.ingest import PictureHasher
from ncii_match.kernels import hamming
from ncii_match.values import Picture

KERNEL_SIZES = ((512, 512), (1024, 1024), (1920, 1080), (4000, 3000))
FILE_SIZES = ((512, 512), (1024, 768), (1920, 1080), (4000, 3000))
FULL_HD, TWELVE_MEGAPIXELS = (1920, 1080), (4000, 3000)
JPEG_QUALITY = 88
KERNEL_PHOTOGRAPH = "retina"  # the largest; the kernel's time does not depend on what it sees
QUICK_PHOTOGRAPHS = ("astronaut", "grass", "rocket")

STREAM_PICTURES = 200
DIGEST_BYTES = 200_000_000  # two of them take a few tenths of a second
READ_BUFFERS = 7
"""Pictures read in rotation, together far larger than any cache. No multiple of the number of contenders (3), so that
each contender gets each buffer in turn."""

CLOSE_BITS, CLOSE_PHASH_BITS = 16, 4
"""How far a hash of the luma plane may be from one of the colours before something is wrong. What is usual is in
docs/accuracy.md; this only catches a route that broke."""


class Duel(NamedTuple):
    """A contest that can be set up: ``prepare`` makes its pictures only when its turn has come."""

    figure: str
    case: dict[str, Any]
    prepare: Callable[[], Contest]
    rounds: int = 5

    @property
    def label(self) -> str:
        return "-".join([self.figure, *map(str, self.case.values())])


def _bits(packed: NDArray[np.uint8], other: NDArray[np.uint8]) -> int:
    return int(np.bitwise_count(packed ^ other).sum())


def _rgb_or_grey(size: tuple[int, int], mode: str) -> NDArray[np.uint8]:
    pixels = cases.photograph_at(KERNEL_PHOTOGRAPH, size)
    return pixels if mode == "RGB" else np.ascontiguousarray(pixels[:, :, 1])


def _kernel(pixels: NDArray[np.uint8], views: tuple[nm.View, ...] = nm.Views.UPRIGHT) -> Run:
    return partial(pdq.hash_picture, Picture(pixels, *pixels.shape[:2]), nm.PDQ, views)


def kernel(size: tuple[int, int], mode: str) -> Contest:
    pixels = _rgb_or_grey(size, mode)
    # pdqhash takes RGB only; threatexchange gives it grey pictures three times over, as here, outside of the time.
    three = pixels if pixels.ndim == 3 else np.repeat(pixels[:, :, None], 3, 2)

    def agree(ours: Any, peer: Any) -> bool:
        return _bits(ours[0][0], np.packbits(peer[0])) == 0 and ours[1][0] == peer[1]

    return Contest({"ours": _kernel(pixels), "pdqhash": partial(record.peer("pdqhash").compute, three)}, agree)


def orientations(size: tuple[int, int], mode: str) -> Contest:
    pixels = _rgb_or_grey(size, mode)

    def agree(eight: Any, single: Any) -> bool:
        turned = (np.rot90(pixels, k) for k in (0, 1, 2, 3))
        turned = [np.ascontiguousarray(single) for turn in turned for single in (turn, turn[:, ::-1])]
        apart = {_kernel(single)()[0].tobytes() for single in turned}
        return {row.tobytes() for row in eight[0]} == apart and _bits(eight[0][0], single[0][0]) == 0

    return Contest({"eight": _kernel(pixels, nm.Views.DIHEDRAL), "one": _kernel(pixels)}, agree)


def from_bytes(name: str, size: tuple[int, int], grain: float) -> Contest:
    data = cases.jpeg_file(name, size, JPEG_QUALITY, grain)

    def agree(ours: nm.Hashes, peer: tuple[str, int]) -> bool:
        return _bits(ours.bits, nm.Hashes.from_hex([peer[0]]).bits) <= CLOSE_BITS

    hasher = record.peer("threatexchange.signal_type.pdq.pdq_hasher")
    ours, theirs = partial(nm.hash_images, [data], workers=1, jpeg="luma"), partial(hasher.pdq_from_bytes, data)
    return Contest({"ours": ours, "threatexchange": theirs}, agree, {"bytes": len(data), "jpeg_quality": JPEG_QUALITY})


def _scaled_decode(data: bytes) -> Image.Image:
    """What the decoder alone takes for the pixels that we hash, with the same way of feeding it."""
    image = JpegImagePlugin.JpegImageFile(BytesIO(data))
    image.draft("L", (pdq.SCALED_SIDE, pdq.SCALED_SIDE))
    image.decodermaxblock = len(data)
    image.load()
    return image


def decoding(name: str, size: tuple[int, int], grain: float) -> Contest:
    data = cases.jpeg_file(name, size, JPEG_QUALITY, grain)
    hashed = PictureHasher(nm.PDQ, nm.Views.UPRIGHT, DecodeLimits(), "luma").decode(data)

    def agree(ours: nm.Hashes, image: Image.Image) -> bool:
        return ours.status[0] == nm.Status.OK and np.array_equal(hashed.pixels, np.asarray(image))

    contenders = {
        "ours": partial(nm.hash_images, [data], workers=1, jpeg="luma"),
        "decode": partial(_scaled_decode, data),
    }
    return Contest(contenders, agree, {"bytes": len(data), "scale": hashed.scale})


FORMATS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "JPEG": ("JPEG", "RGB", {"quality": JPEG_QUALITY}),
    "JPEG 4:4:4": ("JPEG", "RGB", {"quality": JPEG_QUALITY, "subsampling": 0}),
    "PNG": ("PNG", "RGB", {}),
    "PNG grey": ("PNG", "L", {}),
    "PNG alpha": ("PNG", "RGBA", {}),
    "WEBP": ("WEBP", "RGB", {"quality": 85, "method": 0}),
    "AVIF": ("AVIF", "RGB", {"speed": 10}),
    "BMP": ("BMP", "RGB", {}),
    "TIFF": ("TIFF", "RGB", {}),
}
"""Pillow's format, mode and options of each file."""

PEAK = """
import sys
from io import BytesIO
from pathlib import Path
import numpy as np
from PIL import Image
import ncii_match

def kilobytes(name):
    status = Path("/proc/self/status").read_text()
    return int(status.split(name + ":")[1].split()[0])

def ours(data):
    return ncii_match.hash_images([data], workers=1).status[0]

def copied(data):
    with Image.open(BytesIO(data)) as image:
        image.load()
        return np.asarray(image)[0, 0]

run = {"ours": ours, "copied": copied}[sys.argv[1]]
data = Path(sys.argv[2]).read_bytes()
run(Path(sys.argv[3]).read_bytes())
Path("/proc/self/clear_refs").write_text("5")
before = kilobytes("VmRSS")
run(data)
print(1024 * (kilobytes("VmHWM") - before))
"""
"""Bytes that a process needs at most for one picture, after a small one of the same kind, beside the file itself."""


@lru_cache(16)
def format_file(kind: str, size: tuple[int, int]) -> bytes:
    """A photograph with grain, as a file."""
    name, mode, options = FORMATS[kind]
    file = BytesIO()
    Image.fromarray(cases.photograph_at(KERNEL_PHOTOGRAPH, size, cases.GRAIN)).convert(mode).save(file, name, **options)
    return file.getvalue()


def peak(way: str, kind: str, size: tuple[int, int]) -> int:
    """Bytes at most; ``way``: ``ours``, or ``copied`` as Pillow's own ``np.asarray`` does."""
    with tempfile.TemporaryDirectory() as folder:
        large, small = Path(folder, "large"), Path(folder, "small")
        large.write_bytes(format_file(kind, size))
        small.write_bytes(format_file(kind, (64, 48)))
        command = [sys.executable, "-c", PEAK, way, str(large), str(small)]
        done = subprocess.run(command, cwd=record.ROOT, check=True, capture_output=True, text=True)
    return int(done.stdout)


def format_decode(kind: str, size: tuple[int, int]) -> Contest:
    """From the bytes of a file to the hash, against opening and decoding it with Pillow and no more."""
    data = format_file(kind, size)

    def bare() -> Image.Image:
        image = Image.open(BytesIO(data))
        image.load()
        return image

    def agree(ours: nm.Hashes, image: Image.Image) -> bool:
        return _bits(ours.bits, nm.hash_images([image]).bits) == 0

    pixels = size[0] * size[1]
    facts = {f"peak_{way}": peak(way, kind, size) / pixels for way in ("ours", "copied")}
    ours = partial(nm.hash_images, [data], workers=1)
    return Contest({"ours": ours, "bare": bare}, agree, {"bytes": len(data), **facts})


def phash(name: str, size: tuple[int, int], grain: float) -> Contest:
    data = cases.jpeg_file(name, size, JPEG_QUALITY, grain)
    imagehash = record.peer("imagehash")

    def agree(ours: nm.Hashes, peer: Any) -> bool:
        return _bits(ours.bits[0], np.packbits(peer.hash)) <= CLOSE_PHASH_BITS

    def theirs() -> Any:
        return imagehash.phash(Image.open(BytesIO(data)))

    ours = partial(nm.hash_images, [data], nm.PHASH, workers=1, jpeg="luma")
    return Contest({"ours": ours, "ImageHash": theirs}, agree, {"bytes": len(data), "jpeg_quality": JPEG_QUALITY})


def workers(size: tuple[int, int], pictures: int) -> Contest:
    files = [data for _, data in cases.jpeg_files(size, JPEG_QUALITY)]
    stream = [files[k % len(files)] for k in range(pictures)]

    def agree(two: nm.Hashes, alone: nm.Hashes, *_: Any) -> bool:
        return bool(np.array_equal(two.bits, alone.bits) and np.all(alone.status == nm.Status.OK))

    # What this machine gives two threads at this very moment: a busy one does not have a second core to give.
    block = bytes(DIGEST_BYTES)

    def digests(threads: int) -> None:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(hashlib.sha256, [block, block]))

    contenders = {
        "two": partial(nm.hash_images, stream, workers=2, jpeg="luma"),
        "one": partial(nm.hash_images, stream, workers=1, jpeg="luma"),
        "digests_two": partial(digests, 2),
        "digests_one": partial(digests, 1),
    }
    return Contest(contenders, agree)


def reading(size: tuple[int, int]) -> Contest:
    """The kernel against the plainest ways of touching the same bytes, none of which finds them in a cache."""

    def total(words: NDArray[np.uint64]) -> int:
        result = np.uint64(0)
        for k in range(len(words)):
            result += words[k]
        return result

    compiled = record.peer("numba").njit("uint64(uint64[::1])", nogil=True)(total)
    pixels = cases.photograph_at(KERNEL_PHOTOGRAPH, size)
    buffers = cycle([pixels ^ np.uint8(k) for k in range(READ_BUFFERS)])

    def ours() -> Any:
        return _kernel(next(buffers))()

    def read() -> Any:
        return compiled(next(buffers).reshape(-1).view(np.uint64))

    def copy() -> Any:
        return next(buffers).copy()

    return Contest({"ours": ours, "read": read, "copy": copy}, facts={"bytes": pixels.nbytes, "buffers": READ_BUFFERS})


def _python(code: str, **environment: str) -> str:
    command, inherited = [sys.executable, "-c", code], {**os.environ, **environment}
    return subprocess.run(command, cwd=record.ROOT, env=inherited, check=True, capture_output=True, text=True).stdout


def importing() -> Contest:
    return Contest({"import": partial(_python, "import ncii_match"), "bare": partial(_python, "pass")}, warm=False)


def first_hash() -> Contest:
    """A fresh process that imports the package and hashes one file, with nothing compiled, then with what that left."""
    path = cases.PHOTOS / "rocket.jpg"
    code = f"import ncii_match; print(ncii_match.hash_images([{str(path)!r}], workers=1).to_hex()[0])"
    parent = tempfile.mkdtemp(prefix="ncii_match-bench-")
    atexit.register(shutil.rmtree, parent)
    folders: list[Path] = []

    def cold() -> str:
        folders.append(Path(parent, str(len(folders))))
        return _python(code, NUMBA_CACHE_DIR=str(folders[-1]))

    def warm() -> str:
        return _python(code, NUMBA_CACHE_DIR=str(folders[-1]))

    return Contest({"cold": cold, "warm": warm}, operator.eq, warm=False)


def _words(count: int) -> NDArray[np.uint64]:
    return np.random.default_rng(0).integers(0, 2**64, (count, 4), np.uint64)


def _numpy_distances(query: NDArray[np.uint64], columns: list[NDArray[np.uint64]], out: NDArray[np.uint16]) -> None:
    """The quickest of several ways tried: the words of all hashes in columns of their own, no sum along an axis."""
    np.copyto(out, np.bitwise_count(columns[0] ^ query[0]))
    for column, word in zip(columns[1:], query[1:], strict=True):
        np.add(out, np.bitwise_count(column ^ word), out=out)


def one_to_many(entries: int) -> Contest:
    words = _words(entries)
    query, columns = words[-1].copy(), [column.copy() for column in words.T]
    mine, theirs = np.empty(entries, np.uint16), np.empty(entries, np.uint16)

    def ours() -> NDArray[np.uint16]:
        hamming.one_to_many(query, words, mine)
        return mine

    def numpy() -> NDArray[np.uint16]:
        _numpy_distances(query, columns, theirs)
        return theirs

    return Contest({"ours": ours, "numpy": numpy}, np.array_equal, {"pairs": entries})


def all_pairs(left_count: int, right_count: int) -> Contest:
    left, right = np.split(_words(left_count + right_count), [left_count])
    columns = [column.copy() for column in right.T]
    mine, theirs = (np.empty((left_count, right_count), np.uint16) for _ in range(2))

    def ours() -> NDArray[np.uint16]:
        hamming.all_pairs(left, right, mine)
        return mine

    def numpy() -> NDArray[np.uint16]:
        for query, out in zip(left, theirs, strict=True):
            _numpy_distances(query, columns, out)
        return theirs

    return Contest({"ours": ours, "numpy": numpy}, np.array_equal, {"pairs": mine.size})


def duels(quick: bool) -> Iterator[Duel]:
    """Every contest. ``quick``: fewer photographs, shorter streams."""
    names = QUICK_PHOTOGRAPHS if quick else tuple(name for name, _ in cases.photographs())
    for mode in ("RGB", "grey"):
        for size in KERNEL_SIZES:
            case = {"width": size[0], "height": size[1], "mode": mode}
            yield Duel("kernel", case, partial(kernel, size, mode))
            yield Duel("orientations", case, partial(orientations, size, mode))
    yield Duel("reading", {"width": 4000, "height": 3000}, partial(reading, TWELVE_MEGAPIXELS), 20)
    files = [(size, 0.0) for size in FILE_SIZES]
    files += [(size, cases.GRAIN) for size in (FULL_HD, TWELVE_MEGAPIXELS)]
    for size, grain in files:
        for name in names:
            case = {
                "width": size[0],
                "height": size[1],
                "jpeg_quality": JPEG_QUALITY,
                "grain": grain,
                "photograph": name,
            }
            yield Duel("from_bytes", case, partial(from_bytes, name, size, grain))
            yield Duel("decoding", case, partial(decoding, name, size, grain), 10)
            if size == FULL_HD:
                yield Duel("phash", case, partial(phash, name, size, grain))
    for kind in FORMATS:
        case = {"width": 4000, "height": 3000, "format": kind}
        yield Duel("formats", case, partial(format_decode, kind, TWELVE_MEGAPIXELS), 7)
    stream = STREAM_PICTURES // 5 if quick else STREAM_PICTURES
    yield Duel("workers", {"width": 1920, "height": 1080, "pictures": stream}, partial(workers, FULL_HD, stream))
    yield Duel("one_to_many", {"entries": 1_000_000}, partial(one_to_many, 1_000_000))
    yield Duel("all_pairs", {"left": 1000, "right": 3000}, partial(all_pairs, 1000, 3000))
    yield Duel("importing", {}, importing, 5 if quick else 20)
    yield Duel("first_hash", {}, first_hash, 1 if quick else 3)


@pytest.mark.parametrize("duel", list(duels(quick=True)), ids=lambda duel: duel.label)
def test_contenders_agree(duel: Duel, benchmark: Any) -> None:
    contest = duel.prepare()
    assert contest.agree(*contest.results())
    benchmark(next(iter(contest.contenders.values())))


def main() -> None:
    quick = record.parser(__doc__, "fewer pictures and rounds").parse_args().quick
    around, measured = record.circumstances(), []
    for duel in duels(quick):
        contest = duel.prepare()
        if not contest.agree(*contest.results()):
            sys.exit(f"{duel.label}: the contenders do not give the same result, so their times mean nothing")
        samples = contest.measure(0.1 if quick else 0.6, min(duel.rounds, 3) if quick else duel.rounds)
        measured.append({"figure": duel.figure, **duel.case, **contest.facts, **samples})
        best = [f"{name} {1e3 * min(every):.3f} ms" for name, every in samples["samples"].items()]
        print(f"{duel.label}: {', '.join(best)}")
    print(f"wrote {record.write('hashing', around, quick, {'contests': measured})}")


if __name__ == "__main__":
    try:
        main()
    except ImportError as error:
        sys.exit(str(error))
