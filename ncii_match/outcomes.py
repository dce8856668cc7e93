"""What can happen, named: to an input, to a hold, as a result. Imports nothing from the package."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

__all__ = [
    "Action",
    "Hold",
    "Outcome",
    "State",
    "Status",
    "strongest",
]


class Status(IntEnum):
    """Whether one picture gave a hash, and if not, why. Stored as one byte.

    NO_BORDER says nothing against the picture: it stands in the rows of views that trim a border, where there is none.
    TIMED_OUT, NO_WORKER, NO_MEMORY and FAILED may be faults of this machine, so the picture's outcome is UNKNOWN. The
    others are faults of the picture or of its file, so it is UNREADABLE. OUT_OF_MEMORY comes from a confined worker,
    whose memory is bounded for every picture; NO_MEMORY is this process's own lack.

    Examples
    --------
    >>> import ncii_match as nm
    >>> hashes = nm.hash_images([b""])
    >>> nm.Status(hashes.status[0]).name, nm.Status(hashes.status[0]).reason
    ('EMPTY', 'There are no bytes.')
    """

    OK = 0
    EMPTY = 1
    NOT_AN_IMAGE = 2
    FORMAT_NOT_ALLOWED = 3
    TRUNCATED = 4
    CORRUPT = 5
    TOO_MANY_BYTES = 6
    TOO_MANY_PIXELS = 7
    TOO_MANY_FRAMES = 8
    TOO_SMALL = 9
    CANNOT_READ = 10
    UNSUPPORTED_INPUT = 11
    OUT_OF_MEMORY = 12
    NO_BORDER = 13
    TIMED_OUT = 14
    CRASHED = 15
    NO_WORKER = 16
    NO_MEMORY = 17
    FAILED = 18

    @property
    def reason(self) -> str:
        """One sentence for a person."""
        return _REASONS[self]


_REASONS = {
    Status.OK: "The picture was hashed.",
    Status.EMPTY: "There are no bytes.",
    Status.NOT_AN_IMAGE: "The content is not a picture in any known format.",
    Status.FORMAT_NOT_ALLOWED: "The content is a picture in a format that is not on the list of allowed ones.",
    Status.TRUNCATED: "The file ends before the picture does.",
    Status.CORRUPT: "The file's content is damaged.",
    Status.TOO_MANY_BYTES: "The file is larger than the limit.",
    Status.TOO_MANY_PIXELS: "The picture has more pixels than the limit.",
    Status.TOO_MANY_FRAMES: "The animation has more frames than the limit.",
    Status.TOO_SMALL: "A side is shorter than the hash needs (5 pixels for PDQ).",
    Status.CANNOT_READ: "The file could not be opened or read.",
    Status.UNSUPPORTED_INPUT: "The object is not bytes, a path, a file, a Pillow image or a pixel array.",
    Status.OUT_OF_MEMORY: "There was not enough memory to decode the picture.",
    Status.NO_BORDER: "There is no uniform border to trim; the other views show all there is.",
    Status.TIMED_OUT: "Decoding took longer than allowed and was stopped.",
    Status.CRASHED: "The process that decoded the picture died, or gave an answer that is none.",
    Status.NO_WORKER: "No process could be had to decode the picture in.",
    Status.NO_MEMORY: "This process had no memory left to decode and hash the picture.",
    Status.FAILED: "Hashing the picture failed by an error that is not the picture's doing.",
}

TRANSIENT = frozenset(
    {
        Status.CANNOT_READ,
        Status.OUT_OF_MEMORY,
        Status.TIMED_OUT,
        Status.CRASHED,
        Status.NO_WORKER,
        Status.NO_MEMORY,
        Status.FAILED,
    }
)
"""Statuses that may be the moment's fault and not the picture's: a job tries such a picture again, alone."""


class Outcome(IntEnum):
    """What is known about one picture. "Could not look" is never "no match".

    MATCH : an entry is within the policy's threshold.
    NO_MATCH : the picture was looked at in full, and no entry is.
    LOW_QUALITY : the picture has too little detail to be told from others.
    UNREADABLE : there are no pixels to look at.
    UNKNOWN : the bank, or this machine, could not look.

    Examples
    --------
    >>> import ncii_match as nm
    >>> [outcome.name for outcome in nm.Outcome]
    ['NO_MATCH', 'MATCH', 'LOW_QUALITY', 'UNREADABLE', 'UNKNOWN']
    """

    NO_MATCH = 0
    MATCH = 1
    LOW_QUALITY = 2
    UNREADABLE = 3
    UNKNOWN = 4


class Action(IntEnum):
    """What the policy asks the platform to do, mildest first.

    Examples
    --------
    >>> import ncii_match as nm
    >>> nm.Action.ALLOW < nm.Action.REVIEW < nm.Action.BLOCK
    True
    """

    ALLOW = 0
    REVIEW = 1
    BLOCK = 2


class State(IntEnum):
    """How far a hold on an entry has been looked into; the strongest active hold speaks for the entry.

    SEED : reported.
    CONFIRMED : reviewed and upheld.
    DISPUTED : contested.
    WITHDRAWN : ended.

    Examples
    --------
    >>> from ncii_match.outcomes import State, strongest
    >>> strongest([State.DISPUTED, State.SEED]).name
    'SEED'
    """

    SEED = 0
    CONFIRMED = 1
    DISPUTED = 2
    WITHDRAWN = 3


@dataclass(frozen=True, slots=True)
class Hold:
    """Why an entry is in the bank.

    Parameters
    ----------
    case : str
        Reference of the case.
    source : str
        Who gave the case.
    state : State
        How far it has been looked into.
    region : str, optional
        Code of where the case applies; None when it was given without one.

    Examples
    --------
    >>> from ncii_match.outcomes import Hold, State
    >>> Hold("case-1", "own", State.SEED).region is None
    True
    """

    case: str
    source: str
    state: State
    region: str | None = None


STRENGTH = (State.CONFIRMED, State.SEED, State.DISPUTED, State.WITHDRAWN)
"""States, strongest first."""


def strongest(states: Iterable[State]) -> State:
    """The state that speaks for an entry: one confirmed hold is enough, a dispute counts only alone.

    Examples
    --------
    >>> strongest([State.DISPUTED, State.CONFIRMED]).name
    'CONFIRMED'
    """
    return min(states, key=STRENGTH.index)
