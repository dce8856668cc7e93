"""What every command shares: where text goes, progress, exit codes, and how errors end a command.

Results go to standard output, everything else to standard error. With ``--json`` standard output carries one JSON
object, or one a line (JSON Lines) where there is one for each input.
"""

import contextlib
import json
import os
import re
import signal
import sys
import unicodedata
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from enum import IntEnum, StrEnum
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar
from urllib.parse import unquote, urlsplit

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ncii_match.errors import InputError, JobError, MissingExtraError
from ncii_match.values import PDQ, PDQ_512, PHASH, Algorithm, View, Views

if TYPE_CHECKING:
    from rich.progress import Progress

T = TypeVar("T")
R = TypeVar("R")


FEW = 5
"""Pictures that are named where there may be many."""


class Exit(IntEnum):
    """Exit codes of every command."""

    OK = 0
    ERROR = 1  # the command could not do its work; the message says why
    USAGE = 2  # the command line makes no sense
    UNREADABLE = 3  # done, but some inputs could not be read
    MATCHED = 4  # scan and rescan: done, and at least one picture matches
    WORSE = 5  # evaluate compare --fail-if-worse: done, and something is worse than before
    UNPUBLISHED = 6  # bank: the change is in the bank, but its publication failed, and readers do not see it


class AlgorithmName(StrEnum):
    """Algorithms by the short names of the command line."""

    PDQ = "pdq"
    PDQ_512 = "pdq-512"
    PHASH = "phash"

    @property
    def algorithm(self) -> Algorithm:
        """The library's constant."""
        return {"pdq": PDQ, "pdq-512": PDQ_512, "phash": PHASH}[self.value]


class ViewsName(StrEnum):
    """Sets of views by the short names of the command line."""

    UPRIGHT = "upright"
    DIHEDRAL = "dihedral"
    BORDERS = "borders"
    ALL = "all"

    @property
    def views(self) -> tuple[View, ...]:
        """The library's set."""
        sets = {"dihedral": Views.DIHEDRAL, "borders": Views.BORDERS, "all": Views.ALL}
        return sets.get(self.value, Views.UPRIGHT)


class IsolationName(StrEnum):
    """Where pictures are decoded."""

    PROCESS = "process"
    SECCOMP = "seccomp"
    REUSED = "reused"
    THREAD = "thread"

    @property
    def choice(self) -> Literal["process", "seccomp", "reused", "thread"]:
        """As ``Matcher`` takes it."""
        return self.value


class JpegName(StrEnum):
    """How JPEG files are decoded."""

    COLOUR = "colour"
    LUMA = "luma"

    @property
    def route(self) -> Literal["luma", "colour"]:
        """As the library takes it."""
        return "luma" if self is JpegName.LUMA else "colour"


PolicyFile = Annotated[
    Path | None,
    typer.Option("--policy", metavar="FILE.toml", help="What counts as a match and what follows, as TOML."),
]
Ways = Annotated[
    ViewsName | None,
    typer.Option("--views", help="Ways of looking at each picture; by default all that the bank's hash has."),
]
WitnessBank = Annotated[
    str | None,
    typer.Option("--witness", help="A bank of another hash of the same cases, asked as the policy says."),
]
TrustedKey = Annotated[
    Path | None,
    typer.Option(
        "--trusted-key",
        metavar="FILE",
        help="Key file of 'bank keys' that must have signed the bank; NCII_MATCH_TRUSTED_KEY by default.",
    ),
]
Decoded = Annotated[
    IsolationName,
    typer.Option(
        "--isolation",
        help="Where pictures are decoded: each in a confined process of its own (seccomp: only where a filter "
        "of system calls confines it), in confined processes that see many, or in this process.",
    ),
]
JpegFiles = Annotated[
    JpegName,
    typer.Option(
        "--jpeg", help="JPEG files in colour, as viewers show them; or by their luma alone, which is quicker."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable output on standard output.")]
Workers = Annotated[int | None, typer.Option("--workers", min=1, help="Threads; every core by default.")]

_ALLOWED_FORMATS = "\u200c\u200d"
"""Characters without a shape of their own that names in Persian and in Indian scripts are spelled with."""


def visible(text: str) -> str:
    r"""Text with what steers a terminal written as an escape, like ``\x1b`` or ``\u202e``, a line break as ``\n``.

    Names of files, cases and reasons come from outside: one may move the cursor, hide what stands beside it, turn the
    direction of reading, or look like two lines.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escape(letter) for letter in text)


def _escape(letter: str) -> str:
    steers = unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp") and letter not in _ALLOWED_FORMATS
    return letter.encode("unicode_escape").decode() if steers else letter


class VisibleConsole(Console):
    """A console that shows every text by ``visible``: strings, texts, and the cells of tables."""

    def print(self, *objects: Any, **options: Any) -> None:
        """As ``Console.print``."""
        super().print(*map(_visible_object, objects), **options)


def _visible_object(shown: Any) -> Any:
    if isinstance(shown, str):
        return visible(shown)
    if isinstance(shown, Text):
        return shown if visible(shown.plain) == shown.plain else Text(visible(shown.plain), shown.style)
    if isinstance(shown, Table):
        for column in shown.columns:
            column._cells = [_visible_object(cell) for cell in column._cells]  # noqa: SLF001 - there is no other way
    return shown


out = VisibleConsole(
    highlight=False, markup=False, emoji=False, soft_wrap=True, width=None if sys.stdout.isatty() else 200
)
err = VisibleConsole(stderr=True, highlight=False, markup=False, emoji=False)


def say(text: str) -> None:
    """Tell the person something, on standard error."""
    err.print(text, soft_wrap=True)


def outside(out_dir: Path, source: str) -> None:
    """Raise InputError for results inside of what is read: they would be read themselves the next time.

    Also for an address: it would make a folder with an odd name, perhaps with a secret in it.
    """
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(out_dir)):
        raise InputError("results are written to a directory of this machine, and the place asked for is an address")
    address = source.startswith("file://")
    source_path = unquote(urlsplit(source).path) if address else source
    if out_dir.resolve().is_relative_to(Path(source_path).resolve()):
        from ncii_match.jobs.file_systems import redact_secrets

        inside = f"{redact_secrets(str(out_dir))} is inside {redact_secrets(source)}"
        raise InputError(f"{inside}, and would be read with it next time; choose another place")


def in_utc(moment: datetime | None) -> datetime | None:
    """A time of the command line, which names no zone, as UTC: whatever zone the machine is in."""
    return moment if moment is None or moment.tzinfo else moment.replace(tzinfo=UTC)


def directory(text: str) -> Path:
    """An option's directory. Raises typer.BadParameter for an empty one, which would be the current directory."""
    if not text:
        raise typer.BadParameter("it is empty; name a directory, the current one with '.'")
    return Path(text)


@contextlib.contextmanager
def finishing(stop: Callable[[], object]) -> Iterator[None]:
    """The first Ctrl-C has what is in hand finished, by ``stop``; the second one is a KeyboardInterrupt."""

    def on_interrupt(_signal: int, _frame: FrameType | None) -> None:
        say("Finishing what is in hand; once more stops at once. Nothing that was done is lost either way.")
        stop()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def stopped(says: str) -> Iterator[None]:
    """Ctrl-C ends a command with a sentence about what is left, and with the exit code of an error."""
    try:
        yield
    except KeyboardInterrupt:
        raise JobError(f"stopped; {says}") from None


def checked(threshold: int, algorithm: Algorithm) -> int:
    """A threshold that hashes of this algorithm can have. Raises InputError: before the work, not after it."""
    if threshold > algorithm.bits:
        raise InputError(f"threshold {threshold} is above the {algorithm.bits} bits of a hash")
    return threshold


def unreadable(named: list[dict[str, str]], every: int) -> str:
    """Which pictures could not be read, and why: the first few of those that are named."""
    from ncii_match.evaluate import formatting

    shown = [
        f"{formatting.name(picture['id'])} ({picture['status'].replace('_', ' ').lower()})" for picture in named[:FEW]
    ]
    more = [f"{every - len(shown):,} more"] if shown and every > len(shown) else []
    return f": {', '.join([*shown, *more])}" if shown else ""


def need_evaluate() -> None:
    """Raises InputError when what evaluations need is not installed: before the work, not after it."""
    missing = [name for name in ("cv2", "statsmodels", "matplotlib") if find_spec(name) is None]
    if missing:
        raise MissingExtraError(f"this needs {' and '.join(missing)}", "evaluate")


def plain(text: str) -> str:
    """Text with spaces that a terminal may break lines at, and that can be searched for."""
    return text.replace("\N{NO-BREAK SPACE}", " ")


def counted(number: int, singular: str, plural: str | None = None) -> str:
    """A number with its noun: 1 hold, 2 holds."""
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"


def active(entries: int) -> str:
    """How many entries match."""
    return f"the bank has {counted(entries, 'active entry', 'active entries')}"


def emit(value: dict[str, Any]) -> None:
    """One JSON object on a line of its own."""
    sys.stdout.write(json.dumps(value) + "\n")


def progress(what: str, total: int | None) -> "Progress":
    """A progress bar on standard error; silent when that is not a terminal. Use as a context manager."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=err,
        disable=not err.is_terminal,
        transient=True,
        redirect_stdout=False,  # or what is written meanwhile would come out here, on standard error
        redirect_stderr=False,
    )
    bar.add_task(what, total=total)
    return bar


def files_in(paths: Iterable[Path]) -> list[Path]:
    """List the files named, and those in the folders named, in a stable order. Links to folders are not followed."""
    files: list[Path] = []

    def unreadable(error: OSError) -> None:
        # A folder that cannot be looked into is an input that cannot be read, not one that is not there.
        files.append(Path(error.filename))

    for path in paths:
        if path.is_dir():
            for folder, folders, names in os.walk(path, onerror=unreadable):
                folders.sort()
                files.extend(Path(folder, name) for name in sorted(names))
        elif os.path.lexists(path):
            files.append(path)
        else:
            raise InputError(f"{path} does not exist; check the path")
    if not files:
        say("There is no file in what was given: nothing to do.")
    return files


def paired(inputs: Iterable[T], run: Callable[[Iterator[T]], Iterator[R]]) -> Iterator[tuple[T, R]]:
    """Each input with its result, for a function that reads ahead but answers in order."""
    waiting: deque[T] = deque()

    def remember() -> Iterator[T]:
        for source in inputs:
            waiting.append(source)
            yield source

    for result in run(remember()):
        yield waiting.popleft(), result
