"""Results in the order of their inputs, although a few inputs take for ever: the others go on meanwhile."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

InputT = TypeVar("InputT")
ResultT = TypeVar("ResultT")

WINDOW = 10_000
"""Results that may wait for one that is slow: 12 MB of hashes in all views."""

WINDOW_BYTES = 256 << 20
"""Bytes of inputs that belong to these, as who gave them may have to hold them as long."""


class Turn(Generic[InputT, ResultT]):
    """One input: whether it is done, and whether another has its turn while it goes on."""

    def __init__(self, source: InputT, size: int) -> None:
        self.source, self.size = source, size
        self.is_done = self.is_aside = False
        self.result: ResultT | None = None
        self.error: BaseException | None = None


Task = Callable[[InputT, Callable[[], None]], ResultT]
"""What is done with an input. It may call what it is given, once, when it turns out to be slow."""


class OrderedStream(Generic[InputT, ResultT]):
    """Applies a task to inputs on threads of its own; an iterator over the results, in the order of the inputs.

    Parameters
    ----------
    inputs : iterator
        Read in the thread of who asks for results, a little ahead.
    task : Task
        Must not raise what should not end the stream.
    size_of : callable
        Bytes of memory that an input takes.
    workers : int
        Inputs worked on at once, beside those set aside.
    ahead : int
        Inputs in hand. While the next result is of a slow input, ``WINDOW`` results and their inputs are.
    together : int
        Results in a list; fewer before a slow one, and at the end.

    Where a thread cannot be started, others do the work, in the end the one that asks for results.
    """

    def __init__(
        self,
        inputs: Iterator[InputT],
        task: Task[InputT, ResultT],
        size_of: Callable[[InputT], int],
        workers: int,
        ahead: int,
        together: int,
    ) -> None:
        self._inputs, self._task, self._size_of = inputs, task, size_of
        self._workers, self._ahead, self._together = workers, ahead, together
        self._window: deque[Turn[InputT, ResultT]] = deque()
        self._queue: deque[Turn[InputT, ResultT]] = deque()
        self._bytes = self._busy = self._unfinished = self._asides = 0
        self._is_over = False
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []

    def results(self) -> Iterator[list[ResultT]]:
        """Lists of results. Raises what reading the inputs or a task raised, in its place."""
        try:
            is_read = False
            while True:
                while not is_read and self._has_room():
                    try:
                        self._add(next(self._inputs))
                    except StopIteration:
                        is_read = True
                ready = self._ready(may_wait=is_read or not self._has_room())
                if ready:
                    yield ready
                elif is_read and not self._window:
                    return
        finally:
            self._end()

    def _has_room(self) -> bool:
        with self._changed:
            if len(self._window) < self._ahead:
                return True
            waits_for_slow = self._window[0].is_aside and not self._window[0].is_done
            has_space = len(self._window) < WINDOW and self._bytes < WINDOW_BYTES
            return waits_for_slow and has_space and self._unfinished - self._asides < self._ahead

    def _add(self, source: InputT) -> None:
        turn: Turn[InputT, ResultT] = Turn(source, self._size_of(source))
        with self._changed:
            self._window.append(turn)
            self._queue.append(turn)
            self._bytes += turn.size
            self._unfinished += 1
            self._start_thread()
            self._changed.notify_all()

    def _start_thread(self) -> None:
        """One more thread, while there are fewer than may be busy."""
        if len(self._threads) < min(self._workers + self._asides, self._unfinished):
            thread = threading.Thread(target=self._run, name=f"ncii_match-hash-{len(self._threads)}", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the machine has none left
                return
            self._threads.append(thread)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._is_over and not (self._queue and self._busy < self._workers):
                    self._changed.wait()
                if self._is_over:
                    return
                turn = self._queue.popleft()
                self._busy += 1
            self._work(turn)

    def _work(self, turn: Turn[InputT, ResultT]) -> None:
        try:
            turn.result = self._task(turn.source, lambda: self._set_aside(turn))
        except BaseException as error:  # noqa: BLE001  raised where the result would be
            turn.error = error
        with self._changed:
            turn.is_done = True
            self._unfinished -= 1
            if turn.is_aside:
                self._asides -= 1
            else:
                self._busy -= 1
            del turn.source
            self._changed.notify_all()

    def _set_aside(self, turn: Turn[InputT, ResultT]) -> None:
        with self._changed:
            turn.is_aside = True
            self._asides += 1
            self._busy -= 1
            self._start_thread()
            self._changed.notify_all()

    def _ready(self, *, may_wait: bool) -> list[ResultT]:
        """The next results; none where there is something better to do than to wait for them."""
        with self._changed:
            if not self._threads and self._queue:
                turn = self._queue.popleft()
                self._busy += 1
            else:
                turn = None
        if turn is not None:
            self._work(turn)
        with self._changed:
            if may_wait and self._window and not self._window[0].is_done:
                self._changed.wait(1.0)
            first = self._window[0] if self._window else None
            size = 0
            for turn in self._window:
                if size == self._together or not turn.is_done:
                    break
                size += 1
            is_whole = size == self._together or size == len(self._window) or self._window[size].is_aside
            if first is None or not size or not (may_wait and is_whole):
                if may_wait and size and not is_whole:
                    self._changed.wait(1.0)
                return []
            turns = [self._window.popleft() for _ in range(size)]
            self._bytes -= sum(turn.size for turn in turns)
        results = []
        for turn in turns:
            if turn.error is not None:
                raise turn.error
            results.append(turn.result)
        return results  # type: ignore[return-value]

    def _end(self) -> None:
        with self._changed:
            self._is_over = True
            self._queue.clear()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
