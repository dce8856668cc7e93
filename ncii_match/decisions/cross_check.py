"""What a second hash of the same pictures says about weak matches: it can contradict a match, never make one."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ncii_match.outcomes import Hold


@dataclass(frozen=True, slots=True)
class CrossCheck:
    """What the bank of other hashes says of pictures and cases.

    says : by picture of the batch, source and case: whether the case has the picture under its other hash, too.
    failed : why it could not be asked; None when it could, or had not to.
    """

    says: Mapping[tuple[int, str, str], bool] = field(default_factory=dict)
    failed: str | None = None

    def of(self, picture: int, hold: Hold) -> bool | None:
        """Of one hold; None when nothing is known."""
        return self.says.get((picture, hold.source, hold.case))
