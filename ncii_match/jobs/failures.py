"""Why a chunk was not done, in words that travel between processes."""

from dataclasses import dataclass

from ncii_match import errors
from ncii_match.errors import JobError, NciiMatchError


@dataclass(frozen=True, slots=True)
class ChunkFailed:
    """Why a chunk was not done, in words that travel: the kind of the error, and its message."""

    kind: str
    said: str

    def error(self) -> NciiMatchError:
        """The error again; JobError for one that is not of this library."""
        kind = getattr(errors, self.kind, JobError)
        made: NciiMatchError = kind(self.said) if kind is not errors.DecodeError else JobError(self.said)
        return made
