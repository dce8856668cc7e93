"""Figures as a reader sees them: rounded, but never so that they promise more than was measured."""

from collections.abc import Callable
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Context, Decimal
from fractions import Fraction

from ncii_match.jobs.file_systems import redact_secrets
from ncii_match.jobs.page_text import LONGEST_NAME, shown_name

SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

SPACE, TIMES = "\N{NO-BREAK SPACE}", "\N{MULTIPLICATION SIGN}"

WRITTEN_OUT = 1_000_000_000
"""Numbers above it are written as powers of ten."""

Rounded = Callable[[float, str], str]
"""Text of a share, by a rounding of ``decimal``."""

LONGEST_SHOWN = 96
"""Characters of a picture's name; of a longer one the beginning and the end, where the number often is."""


def percent(share: float, rounding: str = ROUND_HALF_EVEN) -> str:
    """A share as percent with one digit, more where it would read 100 or 0 and is not.

    Examples
    --------
    >>> percent(0.99996).replace(SPACE, " ")
    '99.996 %'
    """
    exact, text = Decimal(share) * 100, ""
    if share in (0, 1):
        return f"{exact:.0f}{SPACE}%"
    for digits in range(1, 12):
        rounded = exact.quantize(Decimal(1).scaleb(-digits), rounding)
        text = f"{rounded:f}{SPACE}%"
        if not (rounded == 100 and rounding != ROUND_CEILING) and not (rounded == 0 and rounding != ROUND_FLOOR):
            break
    return text


def confidence(level: float) -> str:
    """A level, as it was asked for."""
    return f"{100 * level:.10g}{SPACE}%"


def at_least(share: float) -> str:
    """The lower end of an interval: rounded down."""
    return percent(share, ROUND_FLOOR)


def at_most(share: float) -> str:
    """An upper bound, rounded up: percent, or ``1 in so many`` below one percent."""
    return percent(share, ROUND_CEILING) if share >= 0.01 or share == 0 else _one_in(share, ROUND_FLOOR)


def upper_end(share: float) -> str:
    """The upper end of an interval: percent, rounded up."""
    return percent(share, ROUND_CEILING)


def rate(share: float) -> str:
    """A small share as it was counted: percent, or ``1 in so many`` below one percent."""
    return percent(share) if share >= 0.01 or share == 0 else _one_in(share, ROUND_HALF_EVEN)


def _one_in(share: float, rounding: str) -> str:
    whole = Fraction(1) / Fraction(share)
    exact = Context(prec=40).divide(whole.numerator, whole.denominator)
    return f"1{SPACE}in{SPACE}{_written(Context(prec=2, rounding=rounding).plus(exact))}"


def number(value: float) -> str:
    """Two digits of what is expected, whole numbers with separators."""
    return _written(Context(prec=2).create_decimal(value))


def number_at_most(value: float) -> str:
    """The same of an upper bound, rounded up."""
    return _written(Context(prec=2, rounding=ROUND_CEILING).create_decimal(value))


def power(value: float, rounding: str = ROUND_HALF_EVEN) -> str:
    """A share in a table: percent, or two digits and a power of ten below one percent."""
    if value == 0:
        return "0"
    if value >= 0.01:
        return percent(value, rounding)
    return _scientific(value, rounding)


def power_at_most(value: float) -> str:
    """The same of an upper bound, rounded up."""
    return power(value, ROUND_CEILING)


def signed(difference: float, rounded: Rounded = percent, rounding: str = ROUND_HALF_EVEN) -> str:
    """A difference of two shares with its sign; percent are percentage points here.

    Parameters
    ----------
    difference : float
        From -1 to 1.
    rounded : callable
        ``percent`` or ``power``, for its size.
    rounding : str
        Of ``decimal``. The ends of an interval are rounded away from the difference: the lower one by ``ROUND_FLOOR``,
        the upper one by ``ROUND_CEILING``.

    Examples
    --------
    >>> signed(-0.123).replace(SPACE, " ")
    '-12.3 points'
    """
    text, opposite = rounded(abs(difference), rounding), {ROUND_FLOOR: ROUND_CEILING, ROUND_CEILING: ROUND_FLOOR}
    if difference < 0:
        text = rounded(-difference, opposite.get(rounding, rounding))
    sign = "+" if difference > 0 else "-" if difference < 0 else ""
    return f"{sign}{text}".replace(f"{SPACE}%", f"{SPACE}points")


def a_million(rate: float, rounding: str = ROUND_HALF_EVEN) -> str:
    """How many of a million: whole numbers from ten on, two digits below."""
    exact = Decimal(rate)
    if exact >= 10:
        return f"{exact.quantize(Decimal(1), rounding):,f}"
    return f"{float(Context(prec=2, rounding=rounding).plus(exact)):.2g}"


def _scientific(value: float | Decimal, rounding: str) -> str:
    """Two digits and a power of ten."""
    digits, _, exponent = f"{Context(prec=2, rounding=rounding).create_decimal(value):.1e}".partition("e")
    return f"{digits}{SPACE}{TIMES}{SPACE}{tens(int(exponent))}"


def tens(exponent: int) -> str:
    """A power of ten on a scale."""
    return f"10{str(exponent).translate(SUPERSCRIPTS)}"


def _written(value: Decimal) -> str:
    if value == 0:
        return "0"
    if value > WRITTEN_OUT or value < Decimal("0.001"):
        return _scientific(value, ROUND_HALF_EVEN)  # it has two digits already
    return f"{value:,.0f}" if value == value.to_integral_value() else f"{value:f}"


def name(text: str) -> str:
    """A picture's name as text that cannot pretend to be another, without secrets, shortened in the middle."""
    text = redact_secrets(text)
    if len(text) > LONGEST_SHOWN:
        half = LONGEST_SHOWN // 2
        return f"{shown_name(text[:half])} … {shown_name(text[-half:])}"
    return shown_name(text[:LONGEST_NAME])
