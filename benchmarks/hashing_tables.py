"""Tables of ``docs/performance.md`` and ``docs/accuracy.md``, from runs of ``bench_hashing.py`` and ``accuracy.py``."""

from collections.abc import Iterable
from statistics import mean, median

from tables import (
    Figures,
    Goal,
    Row,
    Run,
    at_least,
    at_most,
    goals,
    milliseconds,
    number,
    provenance,
    ratios,
    seconds,
    spread,
    table,
)

FULL_HD, TWELVE_MEGAPIXELS = (1920, 1080), (4000, 3000)
PEER = "threatexchange"


def performance(run: Run) -> dict[str, str]:
    """The tables of ``docs/performance.md``."""
    figures = Figures(run)
    return {
        "goals": goals(_goals(figures)),
        "pixels": table(
            ("picture", "ncii_match", "pdqhash", "times faster", "eight orientations", "eight against one"),
            _pixels(figures),
        ),
        "reading": table(("what is done with the pixels", "time", "speed", "against reading"), _reading(figures)),
        "files": table(
            ("picture", "file", "ncii_match", PEER, "times faster", "decoded at", "against that decode alone"),
            _files(figures),
        ),
        "phash": table(("picture", "ncii_match", "ImageHash", "times faster"), _phash(figures)),
        "workers": table(("files", "one worker", "two workers", "times faster", "SHA-256"), [_workers(figures)]),
        "distances": table(("distances", "ncii_match", "numpy", "times faster"), _distances(figures)),
        "starting": table(("", "time"), _starting(figures)),
        "runs": provenance({"bench_hashing.py": run}),
    }


def _photograph_medians(contests: Iterable[Row], slow: str, quick: str) -> list[float]:
    """How many times longer one contender took, for each photograph."""
    return [median(ratios(contest, slow, quick)) for contest in contests]


def _file_cases(figures: Figures) -> list[tuple[int, int, float]]:
    return figures.cases("from_bytes", "width", "height", "grain")


def _import_seconds(figures: Figures) -> float:
    """Beyond those for starting Python."""
    samples = figures.single("importing")["samples"]
    return median(a - b for a, b in zip(samples["import"], samples["bare"], strict=True))


def _size(contest: Row) -> str:
    return f"{contest['width']:,} x {contest['height']:,}"


def _file(contest: Row) -> str:
    return _size(contest) + (", grain" if contest["grain"] else "")


def _goals(figures: Figures) -> list[Goal]:
    def kernel(size: tuple[int, int]) -> float:
        return median(ratios(figures.single("kernel", width=size[0], height=size[1], mode="RGB"), "pdqhash", "ours"))

    def against(figure: str, peer: str, least: float, size: tuple[int, int], what: str) -> list[Goal]:
        grains = [grain for *case, grain in _file_cases(figures) if tuple(case) == size]
        contests = {grain: figures.all(figure, width=size[0], height=size[1], grain=grain) for grain in grains}
        return [
            at_least(f"{what}{', with grain' if grain else ''}, against {peer}", least,
                     median(_photograph_medians(contests[grain], peer, "ours")), "x")
            for grain in grains
        ]  # fmt: skip

    eight = max(median(ratios(contest, "eight", "one")) for contest in figures.all("orientations"))
    decodes = max(
        median(_photograph_medians(figures.all("decoding", width=width, height=height, grain=grain), "ours", "decode"))
        for width, height, grain in _file_cases(figures)
    )
    first = figures.single("first_hash")
    return [
        at_least("pixels to hash, 512 x 512 RGB, against pdqhash", 60, kernel((512, 512)), "x"),
        at_least("pixels to hash, 4,000 x 3,000 RGB, against pdqhash", 80, kernel(TWELVE_MEGAPIXELS), "x"),
        at_most("pixels to hash, 4,000 x 3,000 RGB, against reading them", 1.8,
                median(ratios(figures.single("reading"), "ours", "read")), "x"),
        at_most("all eight orientations against one, worst size", 2.2, eight, "x"),
        *against("from_bytes", PEER, 15, FULL_HD, "JPEG to hash, 1080p"),
        *against("from_bytes", PEER, 40, TWELVE_MEGAPIXELS, "JPEG to hash, 12 megapixels"),
        at_most("JPEG to hash against the scaled decode alone, worst size", 1.3, decodes, "x"),
        *against("phash", "ImageHash", 4, FULL_HD, "JPEG to pHash, 1080p"),
        at_least("two workers against one", 1.7, median(ratios(figures.single("workers"), "one", "two")), "x"),
        at_most("importing the package", 150, 1000 * _import_seconds(figures), " ms"),
        at_most("first hash, nothing compiled yet", 15, seconds(first, "cold"), " s"),
        at_most("first hash of a process, all compiled", 1, seconds(first, "warm"), " s"),
    ]  # fmt: skip


def _pixels(figures: Figures) -> list[tuple[str, ...]]:
    rows = []
    for contest in figures.all("kernel"):
        eight = figures.single("orientations", **{name: contest[name] for name in ("width", "height", "mode")})
        rows.append((
            f"{_size(contest)} {contest['mode']}", milliseconds(seconds(contest, "ours")),
            milliseconds(seconds(contest, "pdqhash")), spread(ratios(contest, "pdqhash", "ours")),
            milliseconds(seconds(eight, "eight")), spread(ratios(eight, "eight", "one")),
        ))  # fmt: skip
    return rows


def _reading(figures: Figures) -> list[tuple[str, ...]]:
    contest = figures.single("reading")
    labels = {"read": "adding up all words, the plainest read", "ours": "hashing", "copy": "numpy's `copy`"}
    return [
        (
            label,
            milliseconds(seconds(contest, name)),
            f"{number(contest['bytes'] / seconds(contest, name) / 1e9)} GB/s",
            spread(ratios(contest, name, "read")),
        )
        for name, label in labels.items()
    ]


def _files(figures: Figures) -> list[tuple[str, ...]]:
    rows = []
    for width, height, grain in _file_cases(figures):
        case = {"width": width, "height": height, "grain": grain}
        hashed, decoded = figures.all("from_bytes", **case), figures.all("decoding", **case)
        rows.append((
            _file(hashed[0]), f"{number(median(contest['bytes'] for contest in hashed) / 1000)} kB",
            *(milliseconds(median(seconds(contest, name) for contest in hashed)) for name in ("ours", PEER)),
            spread(_photograph_medians(hashed, PEER, "ours")), f"1/{decoded[0]['scale']}",
            spread(_photograph_medians(decoded, "ours", "decode")),
        ))  # fmt: skip
    return rows


def _phash(figures: Figures) -> list[tuple[str, ...]]:
    rows = []
    for width, height, grain in figures.cases("phash", "width", "height", "grain"):
        contests = figures.all("phash", width=width, height=height, grain=grain)
        times = (milliseconds(median(seconds(contest, name) for contest in contests)) for name in ("ours", "ImageHash"))
        rows.append((_file(contests[0]), *times, spread(_photograph_medians(contests, "ImageHash", "ours"))))
    return rows


def _workers(figures: Figures) -> tuple[str, ...]:
    contest = figures.single("workers")
    speeds = [f"{number(contest['pictures'] / seconds(contest, name))} a second" for name in ("one", "two")]
    gains = [spread(ratios(contest, *names)) for names in (("one", "two"), ("digests_one", "digests_two"))]
    return (f"{contest['pictures']} of {_size(contest)}", *speeds, *gains)


def _distances(figures: Figures) -> list[tuple[str, ...]]:
    many, pairs = figures.single("one_to_many"), figures.single("all_pairs")
    labels = {
        f"one to {many['entries']:,}": many,
        f"each of {pairs['left']:,} to each of {pairs['right']:,}": pairs,
    }
    rows = []
    for label, contest in labels.items():
        speeds = [contest["pairs"] / seconds(contest, name) / 1e6 for name in ("ours", "numpy")]
        millions = (f"{number(speed)} million a second" for speed in speeds)
        rows.append((label, *millions, spread(ratios(contest, "numpy", "ours"))))
    return rows


def _starting(figures: Figures) -> list[tuple[str, str]]:
    first = figures.single("first_hash")
    return [
        ("`import ncii_match`, beyond starting Python", milliseconds(_import_seconds(figures))),
        ("start, import, hash one file; nothing compiled yet", f"{number(seconds(first, 'cold'))} s"),
        ("the same again, with the compiled code kept", f"{number(seconds(first, 'warm'))} s"),
    ]


# Accuracy: distances in bits between two ways to hash the same file

GOOD_QUALITY = 80
"""PDQ quality, inclusive, from which Meta states how far apart two hashes of one picture may be."""

WAYS = {
    "default": 'ncii_match, `jpeg="luma"`',
    "full_luma": "luma plane at full size",
    "naive": "scaled picture taken for the whole",
}

COLUMNS = ("files", "median", "mean", "99 %", "most")


def accuracy(run: Run) -> dict[str, str]:
    """The tables of ``docs/accuracy.md``."""
    sizes = _by_size(run)
    return {
        "goals": goals(_accuracy_goals(sizes)),
        "pdq": table(("size", "which", "decoded at", *COLUMNS), _groups(run, sizes), words=2),
        "ways": table(("hash", "way", *COLUMNS), _ways(run), words=2),
        "profiles": table(
            ("size", *COLUMNS), [(size, *_row(_bits(files, "pdq", "other_profile"))) for size, files in sizes.items()]
        ),
        "runs": provenance({"accuracy.py": run}),
    }


def _by_size(run: Run) -> dict[str, list[Row]]:
    sizes: dict[str, list[Row]] = {}
    for file in run["pictures"]:
        sizes.setdefault(_size(file), []).append(file)
    return sizes


def _bits(files: Iterable[Row], algorithm: str, way: str = "default") -> list[int]:
    return [file[algorithm][way] for file in files]


def _p99(distances: list[int]) -> int:
    """The smallest distance that 99 % of the files do not exceed."""
    return sorted(distances)[max(0, -(-99 * len(distances) // 100) - 1)]


def _row(distances: list[int]) -> tuple[str, ...]:
    if not distances:
        return ("0", "", "", "", "")
    return (
        f"{len(distances):,}", f"{median(distances):g}", f"{mean(distances):.2f}", str(_p99(distances)),
        str(max(distances)),
    )  # fmt: skip


def _accuracy_goals(sizes: dict[str, list[Row]]) -> list[Goal]:
    worst = {
        algorithm: max(sizes, key=lambda size: _p99(_bits(sizes[size], algorithm))) for algorithm in ("pdq", "phash")
    }
    return [
        at_most("PDQ, median at every size", 0, max(median(_bits(files, "pdq")) for files in sizes.values()), " bits"),
        at_most(f"PDQ, 99 % at the worst size, {worst['pdq']}", 4, _p99(_bits(sizes[worst["pdq"]], "pdq")), " bits"),
        at_most(f"pHash, 99 % at the worst size, {worst['phash']}", 2,
                _p99(_bits(sizes[worst["phash"]], "phash")), " bits"),
    ]  # fmt: skip


def _groups(run: Run, sizes: dict[str, list[Row]]) -> list[tuple[str, ...]]:
    groups = {
        "all": lambda _: True,
        "colour photographs": lambda file: file["photograph"] in run["colour_photographs"],
        f"quality below {GOOD_QUALITY}": lambda file: file["pdq"]["quality"] < GOOD_QUALITY,
    }
    return [
        (size, group, f"1/{files[0]['pdq']['scale']}", *_row(_bits(filter(belongs, files), "pdq")))
        for size, files in sizes.items()
        for group, belongs in groups.items()
    ]


def _ways(run: Run) -> list[tuple[str, ...]]:
    return [
        (label, way, *_row(_bits(run["pictures"], algorithm, name)))
        for algorithm, label in {"pdq": "PDQ, of 256", "phash": "pHash, of 64"}.items()
        for name, way in WAYS.items()
    ]
