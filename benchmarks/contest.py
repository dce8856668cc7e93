"""Contenders measured against each other, turn and turn about.

A machine that does other work as well is never equally fast twice, so single times are not to be trusted and neither
are ratios of times taken minutes apart. Here every round takes one sample of each contender, one right after the
other, and what is compared is the ratio inside a round.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from math import ceil
from time import perf_counter
from typing import Any

SAMPLE_SECONDS = 0.005
"""A sample repeats a quick call for at least this long: the clock, the loop and the first call, which finds the caches
full of the other contender's data, then hardly count."""

MOST_ROUNDS = 60

Run = Callable[[], Any]


def always(*_: Any) -> bool:
    """For contenders that do different work, of which only the time is compared."""
    return True


@dataclass(frozen=True, slots=True)
class Contest:
    """Contenders by name, ours first.

    agree : told one result of each in that order, whether they are what they should be.
    facts : what a reader of the figures should know of the input.
    warm : whether a quick call is repeated within a sample; False where each call starts a process of its own.
    """

    contenders: dict[str, Run]
    agree: Callable[..., bool] = always
    facts: dict[str, Any] = field(default_factory=dict)
    warm: bool = True

    def results(self) -> list[Any]:
        """One result of each contender."""
        return [run() for run in self.contenders.values()]

    def measure(self, seconds: float, least_rounds: int) -> dict[str, Any]:
        """``samples``: seconds a call, one for each round; ``calls``: how many calls each sample is the mean of.

        ``results`` must have been asked for before: that compiles and fills what the first call finds empty.
        """
        calls = {name: self._calls(run) for name, run in self.contenders.items()}
        samples: dict[str, list[float]] = {name: [] for name in self.contenders}
        deadline, rounds = perf_counter() + seconds, 0
        while rounds < least_rounds or (rounds < MOST_ROUNDS and perf_counter() < deadline):
            for name, run in self.contenders.items():
                samples[name].append(_sample(run, calls[name]))
            rounds += 1
        return {"calls": calls, "samples": samples}

    def _calls(self, run: Run) -> int:
        if not self.warm:
            return 1
        return ceil(SAMPLE_SECONDS / min(_sample(run, 1), SAMPLE_SECONDS))


def _sample(run: Run, calls: int) -> float:
    start = perf_counter()
    for _ in range(calls):
        run()
    return round((perf_counter() - start) / calls, 10)
