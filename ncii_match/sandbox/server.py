"""The host's side of the fork server: starts it, orders workers and kills from it, and ends it."""

import contextlib
import math
import os
import socket
import subprocess
import sys
from dataclasses import replace

from ncii_match.decode.image import JpegRoute
from ncii_match.decode.limits import DecodeLimits
from ncii_match.errors import SandboxError
from ncii_match.sandbox import confine, region, wire
from ncii_match.sandbox.region import Region

START_SECONDS = 60.0
"""Longest wait for a fork server, which takes half a second as a rule."""

END_SECONDS = 10.0
"""Longest wait until it has ended a worker, which takes a millisecond as a rule."""

DECODING_SECONDS = 10.0
"""Longest time for one picture unless told otherwise, counted from when a worker has it."""

MEMORY = 1 << 30
"""Bytes that a worker may take for a picture unless told otherwise."""

DECODE = "ncii_match.sandbox.worker:decode_picture"
"""What a worker does with a picture."""

SEND_BYTES = 1 << 20
"""What a socket to a worker takes before the host waits, as far as the system allows: most files, in one turn."""

_START = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1])['path'];"
    "from ncii_match.sandbox.worker import serve; serve(sys.argv[1])"
)

_PASSED_ON = ("PATH", "HOME", "TMPDIR", "LANG", "LANGUAGE", "PYTHONHOME", "PYTHONPLATLIBDIR", "PYTHONPYCACHEPREFIX")
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_PASSED_ON_PREFIXES = ("LC_", "LD_", "DYLD_", "MALLOC_")


def _environment() -> dict[str, str]:
    """What it takes to find libraries; no keys, no credentials."""
    passed_on = {
        name: value for name, value in os.environ.items() if name in _PASSED_ON or name.startswith(_PASSED_ON_PREFIXES)
    }
    return {**passed_on, **dict.fromkeys(_ONE_THREAD, "1")}


_launched: dict[tuple[int, wire.Orders], tuple[socket.socket, subprocess.Popen[bytes]]] = {}
"""Fork servers that nobody has taken over yet, by the process that launched them and their orders."""


def launch(orders: wire.Orders) -> None:
    """Start a fork server ahead of need, without waiting: the next ``ForkServer`` with these orders takes it over.

    It loads Pillow while this process loads what it hashes with. One that nobody takes over ends with this process.
    Never raises: whoever needs it then learns why there is none.
    """
    if sys.executable:
        with contextlib.suppress(SandboxError):
            _launched[os.getpid(), orders] = _spawn(orders)


def orders_for(
    limits: DecodeLimits, jpeg: JpegRoute, *, deadline: float, memory: int = MEMORY, recycle_after: int = 1,
    seccomp: bool = True, task: str = DECODE,
) -> wire.Orders:  # fmt: skip
    """What a fork server is told for pictures that are decoded so; see ``Sandbox``."""
    # A bound for a worker that nobody stops; the host stops each picture long before.
    cpu = math.ceil(60 + 2 * deadline * min(recycle_after, 1000))
    is_filtered = seccomp and confine.level() == "seccomp"
    shared = region.size_for(memory) if is_filtered and region.is_available() else 0
    return wire.Orders(-1, (), limits, jpeg, memory, cpu, shared, seccomp, task)


def _spawn(orders: wire.Orders) -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """The host's end of the control socket, and the process. Raises SandboxError."""
    control, theirs = socket.socketpair()
    try:
        path = tuple(os.path.abspath(entry) for entry in sys.path)
        text = replace(orders, control=theirs.fileno(), path=path).to_json()
        # -P: nothing is imported from the working directory. A session of its own: Ctrl-C is the host's to handle.
        process = subprocess.Popen(  # noqa: S603  our own interpreter
            [sys.executable, "-P", "-c", _START, text],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(),),
            env=_environment(),
            start_new_session=True,
        )
    except BaseException as error:
        control.close()
        if isinstance(error, OSError):
            raise SandboxError(f"The fork server cannot be started: {error}") from None
        raise
    finally:
        theirs.close()
    return control, process


class ForkServer:
    """A running fork server. Not for many threads at once. Raises SandboxError when it does not start."""

    def __init__(self, orders: wire.Orders) -> None:
        if not sys.executable:
            raise SandboxError("sys.executable names no Python to start a fork server with; set it to one")
        self._region_size = orders.region
        launched = _launched.pop((os.getpid(), orders)) if (os.getpid(), orders) in _launched else None
        self.control, self._process = launched or _spawn(orders)
        self._wait_until_started()

    def _wait_until_started(self) -> None:
        self.control.settimeout(START_SECONDS)
        try:
            word = self.control.recv(1)
            if word == wire.STARTED:
                self.control.settimeout(None)
                return
            why = wire.receive(self.control, 1000).decode("utf-8", "replace") if word else "it ended without a word"
        except OSError as error:
            why = f"{type(error).__name__}: {error}"
        self.close()
        raise SandboxError(f"The fork server did not start: {why}")

    def fork(self, number: int) -> tuple[socket.socket, Region | None]:
        """Order a worker; its socket, and its region. Returns before it lives. OSError when the server has ended."""
        own_region = Region(self._region_size) if self._region_size else None
        ours, theirs = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BYTES)
        try:
            descriptors = [theirs.fileno()] if own_region is None else [theirs.fileno(), own_region.descriptor]
            socket.send_fds(self.control, [wire.COMMAND.pack(wire.FORK, number)], descriptors)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return ours, own_region

    def kill(self, number: int) -> None:
        """Kill a worker, if it still lives. OSError when the server has ended, and all workers with it."""
        self.control.sendall(wire.COMMAND.pack(wire.KILL, number))

    def slow(self, number: int) -> None:
        """Lower the priority of a worker. OSError when the server has ended."""
        self.control.sendall(wire.COMMAND.pack(wire.SLOW, number))

    def end(self, number: int) -> int:
        """Kill a worker, if it still lives: its exit code, or minus the signal that ended it, 9 when that was us.

        OSError when the server has ended, or does not answer.
        """
        self.control.sendall(wire.COMMAND.pack(wire.END, number))
        self.control.settimeout(END_SECONDS)
        try:
            answer = wire.receive(self.control, wire.ENDED.size)
        finally:
            self.control.settimeout(None)
        if len(answer) < wire.ENDED.size:
            raise ConnectionError("the fork server ended")
        echo, code = wire.ENDED.unpack(answer)
        if echo != number:
            raise ConnectionError("the fork server answers what was not asked")
        return int(code)

    def is_alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def close(self) -> None:
        """End it, and with it every worker."""
        self.control.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def disown(self) -> None:
        """Let go of it in a process that the host has forked: it is the host's, not ours."""
        self.control.close()
        self._process.returncode = 0  # so that Popen neither waits for it nor complains
