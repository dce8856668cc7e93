"""Workers at hand: forked ahead of need, lent to one thread at a time, replaced as soon as they are given up."""

import os
import threading
import time
import weakref
from collections import deque

from ncii_match.errors import SandboxError
from ncii_match.sandbox.connection import ConfinedWorker
from ncii_match.sandbox.server import ForkServer
from ncii_match.sandbox.wire import Orders

SPARES = 1
"""Warm workers beyond as many as may be in use, so that a picture does not wait for one that is being forked."""

ASIDE = 4
"""Workers for each of those in use that may be set aside: they are slow, and others have taken their turns."""

READY_SECONDS = 20.0
"""Longest wait for a worker that was just forked; as a rule it takes a few milliseconds."""

PAUSE = 0.1
"""Seconds by which the wait between two attempts grows."""

ATTEMPTS = 4
"""Workers that may fail to get ready, one after the other, before the machine is taken to be broken."""


class Workers:
    """All workers of one sandbox and their fork server. Safe for many threads; no thread of its own.

    Parameters
    ----------
    orders : Orders
        What the fork server is told.
    limit : int
        Workers in use at once, beside those set aside.
    single_use : bool
        Whether each worker sees one picture: its successor is then forked when it is lent.
    level : str or None
        The level of confinement without which no worker is used; None for any.

    In a process that the host forks they are forgotten, and others started on first use.
    """

    def __init__(self, orders: Orders, limit: int, *, single_use: bool, level: str | None) -> None:
        self._orders, self._limit, self._single_use, self._wanted_level = orders, limit, single_use, level
        self.level, self.is_closed, self._count = "", False, 0
        self._clear()
        _LIVING.add(self)

    def _clear(self) -> None:
        self._lock = threading.Lock()
        self._slots = threading.Semaphore(self._limit)
        self._server: ForkServer | None = None
        self._ready: list[ConfinedWorker] = []
        self._starting: deque[ConfinedWorker] = deque()
        self._all: set[ConfinedWorker] = set()
        self._aside: set[ConfinedWorker] = set()

    @property
    def count(self) -> int:
        """Workers forked so far."""
        return self._count

    def start(self) -> None:
        """Return when every worker is warm. Raises SandboxError when that cannot be had."""
        with self._lock:
            self._start()

    def _start(self) -> None:
        if self.is_closed:
            raise SandboxError("The sandbox was closed.")
        if self._server is None:
            try:
                for _ in range(self._limit + SPARES):
                    self._fork()
                while self._starting:
                    worker = self._starting.popleft()
                    if not worker.is_ready(READY_SECONDS):
                        worker.close()
                        raise SandboxError("A worker did not get ready: it can not decode where it is confined to.")
                    self._ready.append(worker)
                    self._check_level(worker)
                    self.level = worker.level
            except BaseException as error:
                self._end()
                if isinstance(error, OSError):
                    raise SandboxError(f"The fork server ended while workers were started: {error}") from None
                raise

    def _check_level(self, worker: ConfinedWorker) -> None:
        if self._wanted_level not in (None, worker.level):
            raise SandboxError(
                f"Workers are confined by {worker.level} on this machine, and {self._wanted_level} is required; "
                "use a kernel and a container that allow seccomp filters, or isolation='process'"
            )

    def lend(self) -> ConfinedWorker:
        """A worker that waits for a picture; waits for one. To be given to ``take_back`` or ``give_up``."""
        self._slots.acquire()
        try:
            for attempt in range(ATTEMPTS):
                while True:
                    worker = self._next()
                    is_new = not worker.level
                    if worker.is_ready(READY_SECONDS):
                        self._check_level(worker)
                        return worker
                    self._replace(worker)
                    if is_new:
                        break
                time.sleep(PAUSE * attempt)  # what has just been killed may not look dead yet
            raise SandboxError(f"{ATTEMPTS} workers in a row did not get ready.")
        except BaseException:
            self._slots.release()
            raise

    def _next(self) -> ConfinedWorker:
        with self._lock:
            for _ in range(2):  # again when the server has died since
                self._start()
                idle = len(self._ready) + len(self._starting)
                if not idle or (self._single_use and idle <= self._limit + SPARES):
                    self._fork_ahead()
                if self._ready:
                    return self._ready.pop()
                if self._starting:
                    return self._starting.popleft()
            raise SandboxError("Workers cannot be forked; are there processes, memory and descriptors left?")

    def _fork_ahead(self) -> None:
        """Fork a worker where that can be had; forget all of them when the server has ended."""
        try:
            self._fork()
        except OSError:
            if self._server is not None and not self._server.is_alive():
                self._end()

    def set_aside(self, worker: ConfinedWorker) -> bool:
        """Let another picture have the turn of a slow one, which goes on. Whether it has given it up now."""
        with self._lock:
            if worker in self._aside or len(self._aside) >= ASIDE * self._limit:
                return False
            self._aside.add(worker)
        self._slots.release()
        return True

    def slow(self, worker: ConfinedWorker) -> None:
        """Lower the priority of a worker that is set aside."""
        with self._lock:
            if self._server is not None and worker in self._aside and worker in self._all:
                try:
                    self._server.slow(worker.number)
                except OSError:
                    self._end()

    def _release(self, worker: ConfinedWorker) -> None:
        with self._lock:
            was_aside = worker in self._aside
            self._aside.discard(worker)
        if not was_aside:
            self._slots.release()

    def take_back(self, worker: ConfinedWorker) -> None:
        """It waits for the next picture."""
        with self._lock:
            if worker in self._all:
                self._ready.append(worker)
            else:  # of a server that has ended since
                worker.close()
        self._release(worker)

    def give_up(self, worker: ConfinedWorker, *, ask: bool = False) -> int | None:
        """Kill it, whatever it is doing, and have another one started meanwhile.

        ask : whether to say how it ended, as ``ForkServer.end`` does; None where that cannot be known.
        """
        try:
            return self._replace(worker, ask=ask)
        finally:
            self._release(worker)

    def _replace(self, worker: ConfinedWorker, *, ask: bool = False) -> int | None:
        code = None
        with self._lock:
            worker.close()
            if worker not in self._all or self._server is None:
                return None
            self._all.remove(worker)
            if not self._server.is_alive():  # it was killed, and its workers have gone with it
                self._end()
                return None
            try:
                if ask:
                    code = self._server.end(worker.number)
                else:
                    self._server.kill(worker.number)
            except OSError:  # the server was killed; the next picture starts another one
                self._end()
                return code
            if len(self._ready) + len(self._starting) < (self._limit + SPARES if self._single_use else SPARES):
                self._fork_ahead()
        return code

    def _fork(self) -> None:
        """Raises OSError when the server has ended."""
        if self._server is None:
            self._server = ForkServer(self._orders)
        self._count = (self._count + 1) % 2**32
        worker = ConfinedWorker(self._count, *self._server.fork(self._count))
        self._all.add(worker)
        self._starting.append(worker)

    def close(self) -> None:
        """End every worker, also in the middle of a picture."""
        with self._lock:
            self.is_closed = True
            self._end()

    def _end(self) -> None:
        if self._server is not None:
            self._server.close()
        for worker in {*self._ready, *self._starting}:  # those that are lent are closed by who has them
            worker.close()
        self._server = None
        self._all.clear()
        self._ready.clear()
        self._starting.clear()

    def forget(self) -> None:
        """In a process that the host has forked: let go of what is the host's."""
        server, workers = self._server, self._all
        self._clear()
        if server is not None:
            server.disown()
        for worker in workers:
            worker.close()


_LIVING: "weakref.WeakSet[Workers]" = weakref.WeakSet()


def _forget_all() -> None:
    for workers in list(_LIVING):
        workers.forget()


os.register_at_fork(after_in_child=_forget_all)
