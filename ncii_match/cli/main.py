"""``ncii-match``: the commands put together, and the one place where an error becomes a message and an exit code."""

import io
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperGroup

from ncii_match import __version__
from ncii_match.cli import bank, demo, doctor, evaluate, hash_pictures, rescan, scan
from ncii_match.cli.terminal import Exit, say, visible
from ncii_match.errors import NciiMatchError

UsageError: type[Exception] = typer.BadParameter.__bases__[0]


class VisibleGroup(TyperGroup):
    """Commands whose usage errors show what was typed, or came from a pattern of file names, by ``visible``."""

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        """As ``TyperGroup.make_context``."""
        with _visible_errors():
            return super().make_context(*arguments, **options)

    def invoke(self, ctx: Any) -> Any:
        """As ``TyperGroup.invoke``."""
        with _visible_errors():
            return super().invoke(ctx)


@contextmanager
def _visible_errors() -> Iterator[None]:
    try:
        yield
    except UsageError as error:
        error.message = visible(error.message)  # type: ignore[attr-defined]
        raise


app = typer.Typer(
    cls=VisibleGroup,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Recognise images in a bank of hashes. Exit codes: 0 done, 1 error, 2 wrong usage, "
    "3 done but some inputs could not be read, 4 done and something matched (scan, rescan), "
    "5 done and something is worse (evaluate compare --fail-if-worse), "
    "6 changed in the bank but not published: readers do not see it yet (bank).",
)
app.command("hash")(hash_pictures.hash_command)
app.add_typer(bank.app, name="bank")
app.command("scan")(scan.scan_command)
app.command("rescan")(rescan.rescan_command)
app.add_typer(evaluate.app, name="evaluate")
app.command("demo")(demo.demo_command)
app.command("doctor")(doctor.doctor_command)
app.command("warmup")(doctor.warmup_command)


def _version(is_wanted: bool) -> None:
    if is_wanted:
        sys.stdout.write(f"ncii-match {__version__}\n")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Show the version."),
) -> None:
    """Options of the program itself."""


def run() -> None:
    """Entry point of the console script."""
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # end quietly when the reader, such as `head`, has seen enough
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names need not be text
    try:
        app(standalone_mode=True)
    except (NciiMatchError, OSError) as error:
        say(f"ncii-match: {error}")
        sys.exit(Exit.ERROR)
