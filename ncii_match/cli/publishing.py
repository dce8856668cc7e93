"""What every command that changes a bank does about readers: publish, say whether they see the change, and how it ends.

A command ends with 0 only when readers see everything that the bank has, or when it was told not to publish.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ncii_match.cli.terminal import Exit, counted, say
from ncii_match.errors import BankHistoryError, NciiMatchError

if TYPE_CHECKING:
    from ncii_match.bank.bank import Bank

Publish = Annotated[
    bool, typer.Option("--publish/--no-publish", help="Make readers see the change before the command ends.")
]
Wait = Annotated[
    float | None,
    typer.Option(
        "--wait", min=0, metavar="SECONDS", help="How long to wait for another process that publishes; 60 by default."
    ),
]


def waiting(wait: float | None) -> dict[str, Any]:
    """The argument of the library's calls; theirs by default."""
    return {} if wait is None else {"wait": wait}


@dataclass(frozen=True, slots=True)
class Publication:
    """Whether readers see a change.

    snapshot : number of the snapshot in which they do; None without.
    unpublished : changes that they do not see; None when that cannot be told.
    failure : why the publication failed; None when it did not, or none was asked for.
    is_refused : whether it fails again until something else is done, which ``failure`` names.
    """

    bank_dir: Path
    snapshot: int | None
    unpublished: int | None
    failure: str | None = None
    is_refused: bool = False

    @property
    def fields(self) -> dict[str, int | None]:
        """What ``--json`` says of it."""
        return {"snapshot": self.snapshot, "unpublished": self.unpublished}

    def report(self) -> None:
        """Tell the person what readers do not see. Raises typer.Exit when the publication failed."""
        if self.failure is not None:
            then = "do what is said here" if self.is_refused else f"run: ncii-match bank publish {self.bank_dir}"
            say(
                f"ncii-match: the change is in the bank but not published ({self.failure}). Readers do not see it; "
                f"{then}"
            )
            raise typer.Exit(Exit.UNPUBLISHED)
        if self.unpublished:
            say(backlog_text(self.bank_dir, self.unpublished))


def backlog_text(bank_dir: Path, unpublished: int) -> str:
    """What to do about changes that readers do not see."""
    what = f"{counted(unpublished, 'change is', 'changes are')} not published"
    return f"{what}. Readers see {'it' if unpublished == 1 else 'them'} after: ncii-match bank publish {bank_dir}"


def publish_changes(bank: "Bank", bank_dir: Path, *, publish: bool, wait: float | None) -> Publication:
    """Publish whatever readers do not see, be it from this command or from an earlier one that was cut off."""
    if not publish:
        return Publication(bank_dir, None, bank.unpublished)
    try:
        return Publication(bank_dir, bank.ensure_published(**waiting(wait)).number, 0)
    except (NciiMatchError, OSError, MemoryError, KeyboardInterrupt) as error:
        try:
            is_published, unpublished = bank.is_published, bank.unpublished
        except (NciiMatchError, OSError, MemoryError):
            is_published, unpublished = False, None
        if is_published:  # and only what follows the publication failed
            say("Readers see the change, but clearing up after its publication failed.")
            raise
        is_refused = isinstance(error, BankHistoryError)
        return Publication(bank_dir, None, unpublished, str(error) or type(error).__name__, is_refused)


@contextlib.contextmanager
def advising(bank: "Bank", advice: str) -> Iterator[None]:
    """When what is done inside fails and readers do not see everything, say so, and what to do next."""
    try:
        yield
    except BaseException as error:
        if isinstance(error, BankHistoryError):
            advice = "Do what is said below."
        with contextlib.suppress(NciiMatchError, OSError):
            if not bank.is_published:
                say(f"The bank has changes that readers do not see. {advice}")
        raise
