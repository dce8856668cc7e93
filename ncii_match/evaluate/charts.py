"""Charts of an evaluation as SVG inside a page, drawn by matplotlib: their text is text, their colours the page's.

The same figures give the same bytes: nothing depends on a date, on chance, or on the settings of who draws.
"""

import contextlib
import io
import math
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

from ncii_match.errors import MissingExtraError
from ncii_match.evaluate.formatting import number, percent, tens

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PAINTS = {
    f"#1000{number:02x}": f"var(--{name})"
    for number, name in enumerate(
        ("ink", "soft", "line", "card", "bar", "mark", "series-0", "series-1", "series-2", "series-3")
    )
}
"""Colours to draw with, and what the page calls them: it knows whether it is dark."""

INK, SOFT, LINE, CARD, BAR, MARK, *SERIES = PAINTS

SHAPES = ("o", "s", "^", "D")
"""Of the marks on each line, for readers who cannot tell the colours apart."""

WIDTH, HEIGHT = 360.0, 270.0
"""Points of a chart. It is shown 21 rem wide on a telephone and 34 on a desk: type of 10 points is legible on both."""

THRESHOLD_STEP = 8
"""Bits between the thresholds that are marked in the chart, and listed under it."""

SHARES = {
    1: (1.0, 0.8, 0.6, 0.5, 0.4, 0.3, 0.2, 0.15, 0.1, 0.08, 0.06, 0.05),
    2: (1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001),
    10: tuple(10.0**-exponent for exponent in range(12)),
}
"""Ticks on the scale of misses, fine to coarse: where little is missed, few of them."""

SETTINGS = {
    "svg.fonttype": "none",
    "svg.hashsalt": "ncii_match",
    "text.parse_math": False,
    "font.size": 10.0,
    "axes.edgecolor": SOFT,
    "axes.facecolor": "none",
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "none",
    "grid.color": LINE,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "lines.linewidth": 1.5,
    "text.color": INK,
    "xtick.color": SOFT,
    "xtick.labelcolor": SOFT,
    "ytick.color": SOFT,
    "ytick.labelcolor": SOFT,
}


@dataclass(frozen=True, slots=True)
class Bins:
    """Bins of distances from 0 to the bits of a hash. The first one may be narrower than the others.

    One ends with the threshold, so that none has both what matches and what does not.

    Attributes
    ----------
    width : int
        Bits of each.
    bits : int
        Of a hash.
    threshold : int
        Bits, inclusive.

    Examples
    --------
    >>> Bins(width=4, bits=16, threshold=5).names()
    ['0 to 1', '2 to 5', '6 to 9', '10 to 13', '14 to 16']
    """

    width: int
    bits: int
    threshold: int

    @property
    def firsts(self) -> list[int]:
        """The least distance of each of n."""
        return sorted({0, *range((self.threshold + 1) % self.width, self.bits + 1, self.width)})

    @property
    def edges(self) -> NDArray[np.float64]:
        """float64 [n + 1]: half a bit below the whole distances, so that the threshold lies between two of them."""
        return np.array([*self.firsts, self.bits + 1], np.float64) - 0.5

    def histogram(self, counts: Sequence[Sequence[int]]) -> NDArray[np.int64]:
        """Counts in each bin, int64 [n], from (distance, count)."""
        firsts = self.firsts
        histogram = np.zeros(len(firsts), np.int64)
        for distance, pairs in counts:
            histogram[bisect_right(firsts, distance) - 1] += pairs
        return histogram

    def names(self) -> list[str]:
        """``0 to 3``, and so on."""
        lasts = [first - 1 for first in (*self.firsts[1:], self.bits + 1)]
        ends = zip(self.firsts, lasts, strict=True)
        return [str(first) if first == last else f"{first} to {last}" for first, last in ends]


def _matplotlib() -> ModuleType:
    try:
        import matplotlib as mpl
        import matplotlib.figure
    except ImportError as error:
        raise MissingExtraError(f"charts need matplotlib ({error})", "evaluate") from error
    return mpl


class Charts:
    """Draws the charts of one page. Ids inside a chart are unique on the page.

    Parameters
    ----------
    farthest : int
        The largest distance that there is. Scales of distances end no earlier, and mostly at 3/4 of all bits.

    Raises
    ------
    MissingExtraError
        Without matplotlib.
    """

    def __init__(self, farthest: int) -> None:
        self._farthest = farthest
        self._matplotlib = _matplotlib()
        self._chart_numbers = count()

    @contextlib.contextmanager
    def _draw(self, title: str, about: str, size: tuple[float, float] = (WIDTH, HEIGHT)) -> Iterator["_Drawing"]:
        with self._matplotlib.rc_context():
            self._matplotlib.rcdefaults()
            self._matplotlib.rcParams.update(SETTINGS)
            figure = self._matplotlib.figure.Figure(figsize=(size[0] / 72, size[1] / 72))
            drawing = _Drawing(figure)
            yield drawing
            stream = io.StringIO()
            no_metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
            figure.savefig(stream, format="svg", metadata=no_metadata)
        drawing.svg = _inline(stream.getvalue(), f"c{next(self._chart_numbers)}", title, about)

    def det(self, sets: Mapping[str, Mapping[str, Any]], threshold: int, widest: str) -> Markup:
        """Detection error tradeoff: miss rate against false positive rate, a line for each set of views."""
        pairs = sets[widest]["false"]["pairs"]
        left = 0.5 / max(pairs, 1)
        misses = [1 - at["recall"] for figures in sets.values() for at in figures["sweep"]]
        least = min((miss for miss in misses if miss > 0), default=1 / max(sets[widest]["recall"]["pairs"], 1))
        low = least / 2
        about = (
            f"Miss rate against false positive rate, both on logarithmic scales, a line for each of {len(sets)} sets "
            f"of views, the threshold of {threshold} bits marked. The data end at 1 of {pairs:,} pairs."
        )
        with self._draw("Miss rate against false positive rate", about) as drawing:
            figure = drawing.figure
            figure.set_layout_engine("constrained")
            axes = figure.subplots()
            axes.set(xscale="log", yscale="log", xlim=(left, 1.4), ylim=(low, 1.25))
            for number, (name, figures) in enumerate(sets.items()):
                at_threshold = next(at for at in figures["sweep"] if at["threshold"] == threshold)
                recall = at_threshold["recall"]
                colour, shape = SERIES[number % len(SERIES)], SHAPES[number % len(SHAPES)]
                counted = [at for at in figures["sweep"] if at["false_pairs"]]
                marked = [k for k, at in enumerate(counted) if at["threshold"] % THRESHOLD_STEP == 0]
                axes.plot([at["rate"] for at in counted], [max(1 - at["recall"], low) for at in counted], color=colour,
                          marker=shape, markersize=3.5, markevery=marked,
                          label=f"{name}, {percent(1 - recall)} missed")  # fmt: skip
                size = 7.5 + 2.5 * (len(sets) - 1 - number)  # marks may coincide: the last, smallest one is on top
                is_counted = bool(at_threshold["false_pairs"])
                x, y = at_threshold["rate" if is_counted else "rate_high"], max(1 - recall, low)
                axes.plot(x, y, shape, color=colour, markerfacecolor=colour if is_counted else CARD,
                          markeredgecolor=INK if is_counted else colour, markersize=size, zorder=5 + number,
                          markeredgewidth=1.2)  # fmt: skip
                if name == widest:
                    axes.annotate(f"{threshold} bits", (x, y), (5, -12), textcoords="offset points", fontsize=9)
            bounded = [at for at in sets[widest]["sweep"] if not at["false_pairs"]]
            for key, style, independent in (("rate_high", "--", "pairs"), ("rate_high_pictures", ":", "pictures")):
                if bounded:
                    missed = [max(1 - at["recall"], low) for at in bounded]
                    axes.plot(
                        [at[key] for at in bounded], missed, style, color=MARK, label=f"{independent} independent"
                    )
            axes.axvline(1 / pairs, color=SOFT, linewidth=0.8)
            axes.annotate(f"the data end at 1 of {pairs:,}", (1 / pairs, 1), (0, 3), textcoords="offset points",
                          xycoords=("data", "axes fraction"), va="bottom", fontsize=8.5, color=SOFT,
                          annotation_clip=False)  # fmt: skip
            _power_ticks(axes, left)
            finest = 10 if low < 1e-3 else 2 if low < 0.05 else 1
            ticks = [share for share in SHARES[finest] if share > low]
            none_missed = [low] if min(misses) <= 0 else []
            axes.set_yticks([*ticks, *none_missed], [*map(percent, ticks), *["none" for _ in none_missed]])
            axes.set_yticks([], minor=True)
            axes.set(xlabel="false positive rate", ylabel="miss rate (1 - recall)")
            axes.grid(visible=True, linewidth=0.5)
            figure.legend(loc="outside upper left", fontsize=8.5, ncols=2)
        return drawing.svg

    def distances(
        self, same: NDArray[np.int64], different: NDArray[np.int64], bins: Bins, threshold: int, copies: int
    ) -> Markup:
        """Copies and different pairs by distance, both as shares on a logarithmic scale."""
        pairs = int(different.sum())
        low = 0.5 / max(copies, pairs, 1)
        about = f"Copies (filled) and pairs of different pictures (line) by distance in bits; threshold {threshold}."
        with self._draw("How far copies and different pictures are apart", about) as drawing:
            drawing.figure.set_layout_engine("constrained")
            axes = drawing.figure.subplots()
            axes.set(yscale="log", ylim=(low, 2), xlim=self.distance_limits(bins))
            shares = np.maximum(same / max(copies, 1), low)
            axes.stairs(shares, bins.edges, baseline=low, fill=True, color=BAR, alpha=0.55, label="altered copies")
            if pairs:
                axes.stairs(np.maximum(different / pairs, low), bins.edges, baseline=low, color=INK, linewidth=1.4,
                            label="different pictures")  # fmt: skip
            _threshold_line(axes, threshold)
            _power_ticks(axes, low, "y")
            axes.set(xlabel="bits that differ", ylabel=f"share, in steps of {bins.width} bits")
            drawing.figure.legend(loc="outside upper left", fontsize=8.5, ncols=2)
        return drawing.svg

    def panel(
        self, title: str, same: NDArray[np.int64], different: NDArray[np.int64], bins: Bins, threshold: int
    ) -> Markup:
        """The distances of one transformation's copies, small; different pairs as a line behind them."""
        about = f"Copies by distance in bits; the threshold of {threshold} is a dashed line."
        with self._draw(f"Distances, {title}", about, (150.0, 84.0)) as drawing:
            axes = drawing.figure.add_axes((0.04, 0.22, 0.92, 0.76))
            axes.set_axis_off()  # drawing three numbers is three times as quick without matplotlib's scales
            axes.set(xlim=self.distance_limits(bins), ylim=(0, 1.08))
            axes.axhline(0, color=SOFT, linewidth=1.2)
            for tick in (0, bins.bits // 4, bins.bits // 2):
                axes.annotate(str(tick), (tick, 0), (0, -3), textcoords="offset points", ha="center", va="top",
                              fontsize=9, color=SOFT, annotation_clip=False)  # fmt: skip
            if different.any():
                axes.stairs(different / different.max(), bins.edges, color=SOFT, linewidth=0.8)
            if same.any():
                axes.stairs(same / same.max(), bins.edges, fill=True, color=BAR)
            axes.axvline(threshold + 0.5, color=MARK, linestyle="--", linewidth=1.2)
        return drawing.svg

    def distance_limits(self, bins: Bins) -> tuple[float, float]:
        """Ends of a scale of distances, in bits."""
        return -1.0, max(bins.bits * 0.75, self._farthest + bins.width)

    def quality(self, rows: Sequence[Mapping[str, Any]], threshold: int, min_quality: int) -> Markup:
        """Copies within the threshold by the quality of their hash, and those of them that a policy looks up."""
        about = (
            f"By quality in tens: the share of copies within {threshold} bits (outline), and of those found when "
            f"hashes below quality {min_quality} are not looked up (filled)."
        )
        with self._draw("Quality and what is found", about, (WIDTH, 200.0)) as drawing:
            drawing.figure.set_layout_engine("constrained")
            axes = drawing.figure.subplots()
            counted = [row for row in rows if row["copies"]]
            centres = [row["from"] / 10 + 0.5 for row in counted]
            axes.bar(centres, [row["found"] / row["copies"] for row in counted], 0.8, color=BAR, label="found")
            axes.bar(centres, [row["within"] / row["copies"] for row in counted], 0.8, fill=False, edgecolor=INK,
                     linewidth=1.2, label=f"within {threshold} bits")  # fmt: skip
            if 0 < min_quality <= 100:
                axes.axvline(min_quality / 10, color=MARK, linestyle="--", label=f"least quality {min_quality}")
            axes.set(
                xlim=(-0.1, 11.1),
                ylim=(0, 1.12),
                ylabel="share of copies",
                xlabel="best quality of a copy's hashes, each bar ten from the number at its left",
            )
            axes.set_xticks(range(11), [str(10 * tick) for tick in range(11)])
            axes.set_yticks([0, 0.5, 1], ["0 %", "50 %", "100 %"])
            for row, x in zip(counted, centres, strict=True):
                axes.text(x, 1.02, number(row["copies"]) if row["copies"] >= 10_000 else f"{row['copies']:,}",
                          ha="center", va="bottom", fontsize=7.5, color=SOFT)  # fmt: skip
            drawing.figure.legend(loc="outside upper left", fontsize=8.5, ncols=3)
        return drawing.svg


class _Drawing:
    """A figure to draw on, and, once it is done, its SVG."""

    def __init__(self, figure: "Figure") -> None:
        self.figure, self.svg = figure, Markup("")


def _power_ticks(axes: "Axes", low: float, which: str = "x") -> None:
    """Whole powers of ten on a logarithmic scale, at most seven of them named."""
    exponents = range(math.ceil(math.log10(low)), 1)
    ticks = [*exponents][:: -max(1, -(-len(exponents) // 7))]
    texts = ["1" if exponent == 0 else tens(exponent) for exponent in ticks]
    (axes.set_xticks if which == "x" else axes.set_yticks)([10.0**exponent for exponent in ticks], texts)
    (axes.set_xticks if which == "x" else axes.set_yticks)([], minor=True)


def _threshold_line(axes: "Axes", threshold: int) -> None:
    """What is left of it matches."""
    axes.axvline(threshold + 0.5, color=MARK, linestyle="--")
    axes.annotate(f"threshold {threshold}", (threshold + 0.5, 1), (4, -2), xycoords=("data", "axes fraction"),
                  textcoords="offset points", va="top", color=MARK, fontsize=9)  # fmt: skip


_WHOLE = re.compile(r"^.*?<svg[^>]*?viewBox=\"([^\"]*)\"[^>]*>", re.DOTALL)
_STYLE = re.compile(r"<defs>\s*<style.*?</style>\s*</defs>", re.DOTALL)
_FAMILY = re.compile(r"font-family:[^;\"]*;? ?")
_FONT = re.compile(r"font: ([0-9.]+px) [^;\"]*")
_REFERENCE = re.compile(r"(?:url\(#|xlink:href=\"#)([^)\"]+)")
_ID = re.compile(r" id=\"([^\"]*)\"")
_TURNED = re.compile(r" transform=\"rotate\(-0 [^\"]*\)\"")


def _inline(svg: str, name: str, title: str, about: str) -> Markup:
    """A drawing as part of a page: without prologue and global style, with ids of its own and the page's colours."""
    view = _WHOLE.match(svg)
    body = _WHOLE.sub("", _STYLE.sub("", svg), count=1)
    body = _TURNED.sub("", _FONT.sub(r"font-size: \1", _FAMILY.sub("", body)))
    referenced = set(_REFERENCE.findall(body))
    body = _ID.sub(lambda match: f' id="{name}-{match[1]}"' if match[1] in referenced else "", body)
    body = body.replace("url(#", f"url(#{name}-").replace('xlink:href="#', f'href="#{name}-')
    for paint, variable in PAINTS.items():
        body = body.replace(paint, variable)
    box = "" if view is None else view[1]
    head = (
        f'<svg viewBox="{box}" role="img" aria-labelledby="{name}-title {name}-about">'
        f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-about">{escape(about)}</desc>'
    )
    return Markup(head + " ".join(body.split()).replace("> <", "><"))  # noqa: S704 - matplotlib escapes its texts
