"""``docs/performance.md`` from one run of ``bench_hashing.py``."""

from collections.abc import Iterable
from statistics import median
from typing import Any

import page

Contest = dict[str, Any]

FULL_HD, TWELVE_MEGAPIXELS = (1920, 1080), (4000, 3000)
PEER = "threatexchange"


class Figures:
    """The contests of one run, to be asked for."""

    def __init__(self, run: dict[str, Any]) -> None:
        self._contests: list[Contest] = run["contests"]

    def all(self, figure: str, **case: Any) -> list[Contest]:
        """Every contest of a figure whose case has these values."""
        return [
            one
            for one in self._contests
            if one["figure"] == figure and all(one[name] == value for name, value in case.items())
        ]

    def one(self, figure: str, **case: Any) -> Contest:
        """The only such contest."""
        (found,) = self.all(figure, **case)
        return found

    def cases(self, figure: str, *names: str) -> list[tuple[Any, ...]]:
        """The different values of these parts of a figure's cases, in the order they were measured."""
        return list(dict.fromkeys(tuple(one[name] for name in names) for one in self.all(figure)))

    def file_cases(self) -> list[tuple[int, int, float]]:
        """Width, height and grain of the JPEG files."""
        return self.cases("from_bytes", "width", "height", "grain")


def seconds(contest: Contest, name: str) -> float:
    """Median time of a contender."""
    return median(contest["samples"][name])


def ratios(contest: Contest, slow: str, quick: str) -> list[float]:
    """How many times longer one contender took than the other, round by round."""
    return [a / b for a, b in zip(contest["samples"][slow], contest["samples"][quick], strict=True)]


def over_photographs(contests: Iterable[Contest], slow: str, quick: str) -> list[float]:
    """The median of these for each photograph."""
    return [median(ratios(one, slow, quick)) for one in contests]


def importing(figures: Figures) -> float:
    """Seconds for the import, beyond those for starting Python."""
    samples = figures.one("importing")["samples"]
    return median(a - b for a, b in zip(samples["import"], samples["bare"], strict=True))


def _spread(values: list[float]) -> str:
    return f"{page.number(median(values))}x ({page.number(min(values))} to {page.number(max(values))})"


def _size(contest: Contest) -> str:
    return f"{contest['width']:,} x {contest['height']:,}"


def _file(contest: Contest) -> str:
    return _size(contest) + (", grain" if contest["grain"] else "")


def _goals(figures: Figures) -> list[page.Goal]:
    def kernel(size: tuple[int, int]) -> float:
        one = figures.one("kernel", width=size[0], height=size[1], mode="RGB")
        return median(ratios(one, "pdqhash", "ours"))

    def against(figure: str, peer: str, wanted: float, size: tuple[int, int], what: str) -> list[page.Goal]:
        cases = [case for case in figures.file_cases() if case[:2] == size]
        return [
            page.at_least(
                f"{what}{', with grain' if grain else ''}, against {peer}",
                wanted,
                median(over_photographs(figures.all(figure, width=size[0], height=size[1], grain=grain), peer, "ours")),
                "x",
            )
            for _, _, grain in cases
        ]

    eight = max(median(ratios(one, "eight", "one")) for one in figures.all("orientations"))
    decodes = max(
        median(over_photographs(figures.all("decoding", width=width, height=height, grain=grain), "ours", "decode"))
        for width, height, grain in figures.file_cases()
    )
    reading = median(ratios(figures.one("reading"), "ours", "read"))
    workers = median(ratios(figures.one("workers"), "one", "two"))
    first = figures.one("first_hash")
    return [
        page.at_least("pixels to hash, 512 x 512 RGB, against pdqhash", 60, kernel((512, 512)), "x"),
        page.at_least("pixels to hash, 4,000 x 3,000 RGB, against pdqhash", 80, kernel(TWELVE_MEGAPIXELS), "x"),
        page.at_most("pixels to hash, 4,000 x 3,000 RGB, against reading them", 1.8, reading, "x"),
        page.at_most("all eight orientations against one, worst size", 2.2, eight, "x"),
        *against("from_bytes", PEER, 15, FULL_HD, "JPEG to hash, 1080p"),
        *against("from_bytes", PEER, 40, TWELVE_MEGAPIXELS, "JPEG to hash, 12 megapixels"),
        page.at_most("JPEG to hash against the scaled decode alone, worst size", 1.3, decodes, "x"),
        *against("phash", "ImageHash", 4, FULL_HD, "JPEG to pHash, 1080p"),
        page.at_least("two workers against one", 1.7, workers, "x"),
        page.at_most("importing the package", 150, 1000 * importing(figures), " ms"),
        page.at_most("first hash, nothing compiled yet", 15, seconds(first, "cold"), " s"),
        page.at_most("first hash of a process, all compiled", 1, seconds(first, "warm"), " s"),
    ]


def _against_pdqhash(figures: Figures) -> list[str]:
    rows = [
        (
            f"{_size(one)} {one['mode']}",
            page.milliseconds(seconds(one, "ours")),
            page.milliseconds(seconds(one, "pdqhash")),
            _spread(ratios(one, "pdqhash", "ours")),
        )
        for one in figures.all("kernel")
    ]
    return [
        *page.section("Pixels to hash"),
        *page.prose(
            "The picture is already decoded and in memory; one thread. `pdqhash` is the C++ reference that "
            "`threatexchange` calls. Both give the same 256 bits and the same quality, which is checked before "
            "measuring. It takes colour only, so grey pictures are handed to it three times over, as "
            "`threatexchange` does; making that copy is not counted."
        ),
        *page.table(("picture", "ncii_match", "pdqhash", "times faster"), rows),
    ]


def _eight(figures: Figures) -> list[str]:
    rows = [
        (
            f"{_size(one)} {one['mode']}",
            page.milliseconds(seconds(one, "one")),
            page.milliseconds(seconds(one, "eight")),
            _spread(ratios(one, "eight", "one")),
        )
        for one in figures.all("orientations")
    ]
    return [
        *page.section("All eight orientations"),
        *page.prose("A picture, turned and mirrored; each hash is the same as from hashing the turned pixels."),
        *page.table(("picture", "one", "eight", "eight against one"), rows),
    ]


def _reading(figures: Figures) -> list[str]:
    one = figures.one("reading")
    names = {"read": "adding up all words, the plainest read", "ours": "hashing", "copy": "numpy's `copy`"}
    rows = [
        (
            label,
            page.milliseconds(seconds(one, name)),
            f"{page.number(one['bytes'] / seconds(one, name) / 1e9)} GB/s",
            _spread(ratios(one, name, "read")),
        )
        for name, label in names.items()
    ]
    return [
        *page.section("The limit: reading memory"),
        *page.prose(
            "No hash of all pixels can be quicker than reading them once. Here "
            f"{one['buffers']} colour pictures of {_size(one)} take turns, so that none of them is still in a cache."
        ),
        *page.table(("what is done with the pixels", "time", "speed", "against reading"), rows),
    ]


def _files(figures: Figures) -> list[str]:
    rows, each = [], []
    for width, height, grain in figures.file_cases():
        case = {"width": width, "height": height, "grain": grain}
        found, decoded = figures.all("from_bytes", **case), figures.all("decoding", **case)
        faster = over_photographs(found, PEER, "ours")
        rows.append(
            (
                _file(found[0]),
                f"{page.number(median(one['bytes'] for one in found) / 1000)} kB",
                page.milliseconds(median(seconds(one, "ours") for one in found)),
                page.milliseconds(median(seconds(one, PEER) for one in found)),
                _spread(faster),
                f"1/{decoded[0]['scale']}",
                _spread(over_photographs(decoded, "ours", "decode")),
            )
        )
        each.append((_file(found[0]), *(f"{page.number(one)}x" for one in faster)))
    columns = ("picture", "file", "ncii_match", PEER, "times faster", "decoded at", "against that decode alone")
    photographs = [name for (name,) in figures.cases("from_bytes", "photograph")]
    first, grain = figures.all("from_bytes")[0], max(grain for _, _, grain in figures.file_cases())
    return [
        *page.section("JPEG file to hash"),
        *page.prose(
            f"From the bytes of a JPEG file (quality {first['jpeg_quality']}) to the hash, one picture at a time, "
            f'one thread: `hash_images([data], workers=1, jpeg="luma")` against `pdq_from_bytes` of `{PEER}`. This is '
            "the quicker way, for files that nobody hostile has made; by default every pixel is decoded in colour, "
            "which costs what Pillow's own decoding does (docs/decisions/0020). Most of our time "
            "is the JPEG decoder's, which the last columns show: at which fraction of the size the file is "
            "decoded, and how many times longer the whole way takes than that decode alone. Figures are medians "
            "over the photographs, with the lowest and the highest photograph."
        ),
        *page.prose(
            "The more fine detail a file has, the longer the decoder takes, and the less it matters how quick the "
            "hashing is. The photographs are small ones enlarged, with little fine detail; those with *grain* have "
            f"noise added (standard deviation {page.number(grain)} grey levels) and are nearer to what cameras "
            "write. The size of the file tells which row resembles your pictures."
        ),
        *page.table(columns, rows),
        *page.prose(f"How many times faster than `{PEER}`, for each photograph:"),
        *page.table(("picture", *photographs), each),
    ]


def _formats(figures: Figures) -> list[str]:
    contests = figures.all("formats")
    rows = [
        (
            one["format"],
            page.milliseconds(seconds(one, "ours")),
            page.milliseconds(seconds(one, "bare")),
            _spread(ratios(one, "ours", "bare")),
            page.number(one["peak_ours"]),
            page.number(one["peak_copied"]),
        )
        for one in contests
    ]
    columns = ("file", "bytes to hash", "Pillow's decode alone", "ratio", "bytes a pixel", "with a copy")
    if not rows:
        return []
    return [
        *page.section("Files of all formats to hash"),
        *page.prose(
            f"From the bytes of a file of {_size(contests[0])} pixels to the hash, in colour, against opening and "
            "decoding it with Pillow and no more; and the memory that one picture takes at most beside its file, "
            "against decoding it and `np.asarray(image)`."
        ),
        *page.table(columns, rows),
    ]


def _phash(figures: Figures) -> list[str]:
    rows = []
    for width, height, grain in figures.cases("phash", "width", "height", "grain"):
        found = figures.all("phash", width=width, height=height, grain=grain)
        rows.append(
            (
                _file(found[0]),
                page.milliseconds(median(seconds(one, "ours") for one in found)),
                page.milliseconds(median(seconds(one, "ImageHash") for one in found)),
                _spread(over_photographs(found, "ImageHash", "ours")),
            )
        )
    return [
        *page.section("JPEG file to pHash"),
        *page.prose("The same for the 64-bit pHash, against `imagehash.phash(Image.open(file))`."),
        *page.table(("picture", "ncii_match", "ImageHash", "times faster"), rows),
    ]


def _workers(figures: Figures) -> list[str]:
    one = figures.one("workers")
    speeds = [f"{page.number(one['pictures'] / seconds(one, name))} a second" for name in ("one", "two")]
    gains = [_spread(ratios(one, slow, quick)) for slow, quick in (("one", "two"), ("digests_one", "digests_two"))]
    return [
        *page.section("Several workers"),
        *page.prose(
            f"`hash_images` over {one['pictures']} JPEG files, some of them more than once. The last column is what "
            "the machine gave two threads in the same rounds for plain arithmetic (SHA-256): where that is far "
            "from 2, other programs held a core."
        ),
        *page.table(("files", "one worker", "two workers", "times faster", "SHA-256"), [(_size(one), *speeds, *gains)]),
    ]


def _distances(figures: Figures) -> list[str]:
    many, pairs = figures.one("one_to_many"), figures.one("all_pairs")
    labels = {
        f"one to {many['entries']:,}": many,
        f"each of {pairs['left']:,} to each of {pairs['right']:,}": pairs,
    }
    rows = []
    for label, one in labels.items():
        speeds = [one["pairs"] / seconds(one, name) / 1e6 for name in ("ours", "numpy")]
        millions = (f"{page.number(speed)} million a second" for speed in speeds)
        rows.append((label, *millions, _spread(ratios(one, "numpy", "ours"))))
    return [
        *page.section("Hamming distances"),
        *page.prose(
            "Distances between 256-bit hashes, one thread, against `numpy.bitwise_count` used in the quickest way we "
            "know: over the words of all hashes in columns of their own, laid out beforehand."
        ),
        *page.table(("distances", "ncii_match", "numpy", "times faster"), rows),
    ]


def _starting(figures: Figures) -> list[str]:
    first = figures.one("first_hash")
    rows = [
        ("`import ncii_match`, beyond starting Python", page.milliseconds(importing(figures))),
        ("start, import, hash one file; nothing compiled yet", f"{page.number(seconds(first, 'cold'))} s"),
        ("the same again, with the compiled code kept", f"{page.number(seconds(first, 'warm'))} s"),
    ]
    return [
        *page.section("Starting"),
        *page.prose(
            "The first hash after installing compiles the kernels for the processor at hand and keeps the result; "
            "`ncii-match warmup` does it ahead of time."
        ),
        *page.table(("", "time"), rows),
    ]


def text(run: dict[str, Any]) -> str:
    """The whole page."""
    figures = Figures(run)
    lines = [
        *page.head("Performance", "bench_hashing.py", run),
        *page.prose(
            "Times differ from machine to machine and from minute to minute; ratios taken at the same moment "
            "differ much less. So each figure comes from rounds in which the contenders take turns. A ratio is the "
            "median of the rounds' ratios, with the lowest and the highest in brackets; a time is a median."
        ),
        *page.section("Goals"),
        *page.goals(_goals(figures)),
        *page.section("Why goals are missed"),
        *page.prose(
            "Small pictures: what does not depend on their size (4,096 weighted sums, the transform, the median, the "
            "call from Python) outweighs the pixels, so neither the decoder's time nor the peer's is far away. The "
            "peer itself is up to twice as slow at 512 x 512 in one process as in another, with where its buffers "
            "happen to lie."
        ),
        *page.prose(
            "All eight orientations: PDQ's window lies off centre on most sizes, so a mirrored picture needs sums of "
            "its own: two for the rows, four for the columns and the transform. Reading the pixels is shared, and "
            "only where that dominates does the ratio come near one."
        ),
        *page.prose(
            "Files with grain: nearly all the time is the JPEG decoder's entropy decoding, which every hash of a JPEG "
            "has to wait for and which the peer shares. The column that compares with the decode alone is the bound."
        ),
        *_against_pdqhash(figures),
        *_eight(figures),
        *_reading(figures),
        *_files(figures),
        *_formats(figures),
        *_phash(figures),
        *_workers(figures),
        *_distances(figures),
        *_starting(figures),
        *page.foot("bench_hashing.py", run),
    ]
    return "\n".join(lines)
