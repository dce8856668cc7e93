"""Charts of an evaluation, drawn by matplotlib as SVG to stand inside a page: its text is text, its colours the page's.

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
"""Colours that are drawn with, and what the page calls them: it knows whether it is dark."""

INK, SOFT, LINE, CARD, BAR, MARK, *SERIES = PAINTS

SHAPES = ("o", "s", "^", "D")
"""Of the marks on each line, for who cannot tell the colours apart."""

WIDTH, HEIGHT = 360.0, 270.0
"""Points of a chart. It is shown 21 rem wide on a telephone and 34 on a desk: type of 10 points is legible on both."""

EVERY = 8
"""Bits between the thresholds that are marked, and listed under the chart."""

SHARES = {
    1: (1.0, 0.8, 0.6, 0.5, 0.4, 0.3, 0.2, 0.15, 0.1, 0.08, 0.06, 0.05),
    2: (1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001),
    10: tuple(10.0**-one for one in range(12)),
}
"""Places on the scale of misses: where little is missed, few of them."""

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
    """How distances are gathered: ``width`` bits each, from 0 to the ``bits`` of a hash, the first one may have fewer.

    One ends with the ``threshold``, so that none has both what matches and what does not.
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

    def of(self, counts: Sequence[Sequence[int]]) -> NDArray[np.int64]:
        """int64 [n], from (distance, how many)."""
        firsts = self.firsts
        found = np.zeros(len(firsts), np.int64)
        for distance, many in counts:
            found[bisect_right(firsts, distance) - 1] += many
        return found

    def names(self) -> list[str]:
        """``0 to 3``, and so on."""
        lasts = [one - 1 for one in (*self.firsts[1:], self.bits + 1)]
        return [str(one) if one == last else f"{one} to {last}" for one, last in zip(self.firsts, lasts, strict=True)]


def _matplotlib() -> ModuleType:
    try:
        import matplotlib as mpl
        import matplotlib.figure
    except ImportError as error:
        raise MissingExtraError(f"charts need matplotlib ({error})", "evaluate") from error
    return mpl


class Charts:
    """Draws the charts of one page; each has a name of its own there, so that nothing in it is called like another.

    reach : the largest distance that there is; scales of distances end no earlier, and mostly at 3/4 of all bits.
    """

    def __init__(self, reach: int) -> None:
        self._reach = reach
        self._matplotlib = _matplotlib()
        self._numbers = count()

    @contextlib.contextmanager
    def _drawn(self, title: str, about: str, size: tuple[float, float] = (WIDTH, HEIGHT)) -> Iterator["_Sheet"]:
        with self._matplotlib.rc_context():
            self._matplotlib.rcdefaults()
            self._matplotlib.rcParams.update(SETTINGS)
            figure = self._matplotlib.figure.Figure(figsize=(size[0] / 72, size[1] / 72))
            sheet = _Sheet(figure)
            yield sheet
            stream = io.StringIO()
            nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
            figure.savefig(stream, format="svg", metadata=nothing)
        sheet.svg = _inline(stream.getvalue(), f"c{next(self._numbers)}", title, about)

    def det(self, sets: Mapping[str, Mapping[str, Any]], threshold: int, widest: str) -> Markup:
        """Miss rate against false-positive rate, a line for each way of looking."""
        pairs = sets[widest]["false"]["pairs"]
        left = 0.5 / max(pairs, 1)
        misses = [1 - at["recall"] for one in sets.values() for at in one["sweep"]]
        least = min((one for one in misses if one > 0), default=1 / max(sets[widest]["recall"]["pairs"], 1))
        low = least / 2
        about = (
            f"Miss rate against false-positive rate, both on logarithmic scales, a line for each of {len(sets)} ways "
            f"of looking, the threshold of {threshold} bits marked. The data end at 1 of {pairs:,} pairs."
        )
        with self._drawn("Copies missed and different pictures taken for the same", about) as sheet:
            figure = sheet.figure
            figure.set_layout_engine("constrained")
            axes = figure.subplots()
            axes.set(xscale="log", yscale="log", xlim=(left, 1.4), ylim=(low, 1.25))
            for place, (name, one) in enumerate(sets.items()):
                recall = next(at["recall"] for at in one["sweep"] if at["threshold"] == threshold)
                colour, shape = SERIES[place % len(SERIES)], SHAPES[place % len(SHAPES)]
                seen = [at for at in one["sweep"] if at["false_pairs"]]
                marked = [k for k, at in enumerate(seen) if at["threshold"] % EVERY == 0]
                axes.plot([at["rate"] for at in seen], [max(1 - at["recall"], low) for at in seen], color=colour,
                          marker=shape, markersize=3.5, markevery=marked,
                          label=f"{name}, {percent(1 - recall)} missed")  # fmt: skip
                size = 7.5 + 2.5 * (
                    len(sets) - 1 - place
                )  # marks may be in one place: the last, smallest one is on top
                here = next(at for at in one["sweep"] if at["threshold"] == threshold)
                x, y = here["rate"] if here["false_pairs"] else here["rate_high"], max(1 - here["recall"], low)
                axes.plot(x, y, shape, color=colour, markerfacecolor=colour if here["false_pairs"] else CARD,
                          markeredgecolor=INK if here["false_pairs"] else colour, markersize=size, zorder=5 + place,
                          markeredgewidth=1.2)  # fmt: skip
                if name == widest:
                    axes.annotate(f"{threshold} bits", (x, y), (5, -12), textcoords="offset points", fontsize=9)
            bounded = [at for at in sets[widest]["sweep"] if not at["false_pairs"]]
            for key, style, who in (("rate_high", "--", "pairs"), ("rate_high_pictures", ":", "pictures")):
                if bounded:
                    missed = [max(1 - at["recall"], low) for at in bounded]
                    axes.plot([at[key] for at in bounded], missed, style, color=MARK, label=f"{who} independent")
            axes.axvline(1 / pairs, color=SOFT, linewidth=0.8)
            axes.annotate(f"the data end at 1 of {pairs:,}", (1 / pairs, 1), (0, 3), textcoords="offset points",
                          xycoords=("data", "axes fraction"), va="bottom", fontsize=8.5, color=SOFT,
                          annotation_clip=False)  # fmt: skip
            _powers(axes, left)
            finest = 10 if low < 1e-3 else 2 if low < 0.05 else 1
            ticks = [one for one in SHARES[finest] if one > low]
            axes.set_yticks([*ticks, *([low] if min(misses) <= 0 else [])],
                            [*map(percent, ticks), *(["none"] if min(misses) <= 0 else [])])  # fmt: skip
            axes.set_yticks([], minor=True)
            axes.set(xlabel="share of different pairs taken for the same", ylabel="share of copies missed")
            axes.grid(visible=True, linewidth=0.5)
            figure.legend(loc="outside upper left", fontsize=8.5, ncols=2)
        return sheet.svg

    def distances(
        self, same: NDArray[np.int64], different: NDArray[np.int64], bins: Bins, threshold: int, copies: int
    ) -> Markup:
        """Copies and different pairs by distance, both as shares on a logarithmic scale."""
        pairs = int(different.sum())
        low = 0.5 / max(copies, pairs, 1)
        about = f"Copies (filled) and pairs of different pictures (line) by distance in bits; threshold {threshold}."
        with self._drawn("How far copies and different pictures are apart", about) as sheet:
            sheet.figure.set_layout_engine("constrained")
            axes = sheet.figure.subplots()
            axes.set(yscale="log", ylim=(low, 2), xlim=self._across(bins))
            shares = np.maximum(same / max(copies, 1), low)
            axes.stairs(shares, bins.edges, baseline=low, fill=True, color=BAR, alpha=0.55, label="altered copies")
            if pairs:
                axes.stairs(np.maximum(different / pairs, low), bins.edges, baseline=low, color=INK, linewidth=1.4,
                            label="different pictures")  # fmt: skip
            _line(axes, threshold, f"threshold {threshold}")
            _powers(axes, low, "y")
            axes.set(xlabel="bits that differ", ylabel=f"share, in steps of {bins.width} bits")
            sheet.figure.legend(loc="outside upper left", fontsize=8.5, ncols=2)
        return sheet.svg

    def panel(
        self, title: str, same: NDArray[np.int64], different: NDArray[np.int64], bins: Bins, threshold: int
    ) -> Markup:
        """The distances of one transformation's copies, small; different pairs as a line behind them."""
        about = f"Copies by distance in bits; the threshold of {threshold} is a dashed line."
        with self._drawn(f"Distances, {title}", about, (150.0, 84.0)) as sheet:
            axes = sheet.figure.add_axes((0.04, 0.22, 0.92, 0.76))
            axes.set_axis_off()  # drawing three numbers is three times as quick without matplotlib's scales
            axes.set(xlim=self._across(bins), ylim=(0, 1.08))
            axes.axhline(0, color=SOFT, linewidth=1.2)
            for place in (0, bins.bits // 4, bins.bits // 2):
                axes.annotate(str(place), (place, 0), (0, -3), textcoords="offset points", ha="center", va="top",
                              fontsize=9, color=SOFT, annotation_clip=False)  # fmt: skip
            if different.any():
                axes.stairs(different / different.max(), bins.edges, color=SOFT, linewidth=0.8)
            if same.any():
                axes.stairs(same / same.max(), bins.edges, fill=True, color=BAR)
            axes.axvline(threshold + 0.5, color=MARK, linestyle="--", linewidth=1.2)
        return sheet.svg

    def _across(self, bins: Bins) -> tuple[float, float]:
        return -1.0, max(bins.bits * 0.75, self._reach + bins.width)

    def quality(self, rows: Sequence[Mapping[str, Any]], threshold: int, min_quality: int) -> Markup:
        """Copies within the threshold by the quality of their hash, and those of them that a policy looks up."""
        about = (
            f"By quality in tens: the share of copies within {threshold} bits (outline), and of those found when "
            f"hashes below quality {min_quality} are not looked up (filled)."
        )
        with self._drawn("Quality and what is found", about, (WIDTH, 200.0)) as sheet:
            sheet.figure.set_layout_engine("constrained")
            axes = sheet.figure.subplots()
            there = [row for row in rows if row["copies"]]
            at = [row["from"] / 10 + 0.5 for row in there]
            axes.bar(at, [row["found"] / row["copies"] for row in there], 0.8, color=BAR, label="found")
            axes.bar(at, [row["within"] / row["copies"] for row in there], 0.8, fill=False, edgecolor=INK,
                     linewidth=1.2, label=f"within {threshold} bits")  # fmt: skip
            if 0 < min_quality <= 100:
                axes.axvline(min_quality / 10, color=MARK, linestyle="--", label=f"least quality {min_quality}")
            axes.set(
                xlim=(-0.1, 11.1),
                ylim=(0, 1.12),
                ylabel="share of copies",
                xlabel="best quality of a copy's hashes, each bar ten from the number at its left",
            )
            axes.set_xticks(range(11), [str(10 * one) for one in range(11)])
            axes.set_yticks([0, 0.5, 1], ["0 %", "50 %", "100 %"])
            for row, x in zip(there, at, strict=True):
                axes.text(x, 1.02, number(row["copies"]) if row["copies"] >= 10_000 else f"{row['copies']:,}",
                          ha="center", va="bottom", fontsize=7.5, color=SOFT)  # fmt: skip
            sheet.figure.legend(loc="outside upper left", fontsize=8.5, ncols=3)
        return sheet.svg


class _Sheet:
    """What is drawn on, and, once it is done, the drawing."""

    def __init__(self, figure: "Figure") -> None:
        self.figure, self.svg = figure, Markup("")


def _powers(axes: "Axes", low: float, which: str = "x") -> None:
    """Whole powers of ten on a logarithmic scale, at most seven of them named."""
    exponents = range(math.ceil(math.log10(low)), 1)
    ticks = [*exponents][:: -max(1, -(-len(exponents) // 7))]
    texts = ["1" if one == 0 else tens(one) for one in ticks]
    (axes.set_xticks if which == "x" else axes.set_yticks)([10.0**one for one in ticks], texts)
    (axes.set_xticks if which == "x" else axes.set_yticks)([], minor=True)


def _line(axes: "Axes", threshold: int, says: str) -> None:
    """The threshold: what is left of it matches."""
    axes.axvline(threshold + 0.5, color=MARK, linestyle="--")
    axes.annotate(says, (threshold + 0.5, 1), (4, -2), xycoords=("data", "axes fraction"), textcoords="offset points",
                  va="top", color=MARK, fontsize=9)  # fmt: skip


_WHOLE = re.compile(r"^.*?<svg[^>]*?viewBox=\"([^\"]*)\"[^>]*>", re.DOTALL)
_STYLE = re.compile(r"<defs>\s*<style.*?</style>\s*</defs>", re.DOTALL)
_FAMILY = re.compile(r"font-family:[^;\"]*;? ?")
_FONT = re.compile(r"font: ([0-9.]+px) [^;\"]*")
_NAMED = re.compile(r"(?:url\(#|xlink:href=\"#)([^)\"]+)")
_ID = re.compile(r" id=\"([^\"]*)\"")
_TURNED = re.compile(r" transform=\"rotate\(-0 [^\"]*\)\"")


def _inline(svg: str, name: str, title: str, about: str) -> Markup:
    """A drawing as part of a page: no prologue, no style for all, ids that no other drawing has, the page's colours."""
    view = _WHOLE.match(svg)
    body = _WHOLE.sub("", _STYLE.sub("", svg), count=1)
    body = _TURNED.sub("", _FONT.sub(r"font-size: \1", _FAMILY.sub("", body)))
    named = set(_NAMED.findall(body))
    body = _ID.sub(lambda one: f' id="{name}-{one[1]}"' if one[1] in named else "", body)
    body = body.replace("url(#", f"url(#{name}-").replace('xlink:href="#', f'href="#{name}-')
    for paint, variable in PAINTS.items():
        body = body.replace(paint, variable)
    box = "" if view is None else view[1]
    head = (
        f'<svg viewBox="{box}" role="img" aria-labelledby="{name}-title {name}-about">'
        f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-about">{escape(about)}</desc>'
    )
    return Markup(head + " ".join(body.split()).replace("> <", "><"))  # noqa: S704 - matplotlib escapes its texts
