"""What hostile pictures make of a worker: loaded by the fork server in place of the function that decodes."""

import ctypes
import mmap
import os
import resource
import signal
import socket
import subprocess
import threading
import time

import numpy as np

from ncii_match.decode import planes
from ncii_match.errors import DecodeError
from ncii_match.outcomes import Status
from ncii_match.sandbox import wire
from ncii_match.values import Picture

SIGN = b"HOSTILE "

HALF = b" HALF"
"""Behind a JPEG: there is memory to decode it at a fraction, and not in full, which is asked for next."""

STATE = {"replies": None, "asked": 0}
"""What a worker that was taken over remembers for the next picture."""


def _write(data):
    return lambda: os.write(3, data)


def _open():
    with open("/etc/hostname", "rb") as file:
        file.read()


def _executable():
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)


def _loop():
    while True:
        pass


def _region():
    """The memory that this worker has in common with the host: its address, its size, and its samples."""
    arena = planes._memories[0].__self__
    return arena._start, arena._size, arena._bytes


def _advise(advice):
    """Ask the kernel for something that a worker may not have; end with 7 where it is refused."""
    libc, (start, size, _) = ctypes.CDLL(None, use_errno=True), _region()
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    os._exit(8 if libc.madvise(start, size, advice) == 0 else 7)


def _outgrow():
    libc, (start, size, _) = ctypes.CDLL(None), _region()
    libc.mremap.restype, libc.mremap.argtypes = ctypes.c_void_p, [ctypes.c_void_p, *[ctypes.c_size_t] * 2, ctypes.c_int]
    ctypes.memset(libc.mremap(start, size, 2 * size, 1) + size, 1, 1)


def _write_on():
    """Say that the picture is there, and go on writing to it while the host looks."""
    samples = _region()[2]
    head = wire.REPLY.pack(1, 0, 1, 1, wire.SHARED, SIDE, SIDE, SIDE, SIDE)
    os.write(3, head)
    for level in range(10**9):
        samples[: SIDE * SIDE] = level % 256
        samples[: SIDE * SIDE : 1 + level % 7] = level // 3 % 256


def _look_for_others():
    """A picture that says whether anybody was here before: grey where nobody was, and the process ends otherwise."""
    samples = _region()[2][1 << 20 : 8 << 20]  # behind the picture that warms a worker up
    if samples.any():
        os._exit(9)
    samples[:] = 77
    return claimed()


def _other_process():
    libc = ctypes.CDLL(None)
    libc.syscall(56, signal.SIGCHLD, 0, 0, 0, 0)  # clone, without CLONE_THREAD


def _thread():
    seen = []
    thread = threading.Thread(target=seen.append, args=(1,))
    thread.start()
    thread.join()
    if seen != [1]:
        os._exit(1)


DEEDS = {
    b"abort": os.abort,
    b"segfault": lambda: ctypes.string_at(0),
    b"loop": _loop,
    b"sleep": lambda: time.sleep(1000),
    b"memory": lambda: bytearray(10_000_000_000),
    b"memory, untouched": lambda: np.empty(10_000_000_000, np.uint8),
    b"fork": os.fork,
    b"process": _other_process,
    b"exec": lambda: os.execv("/bin/true", ["true"]),
    b"program": lambda: subprocess.run(["/bin/true"], check=True),
    b"socket": socket.socket,
    b"connect": lambda: socket.socket().connect(("127.0.0.1", 1)),
    b"open": _open,
    b"list": lambda: os.listdir("/"),
    b"delete": lambda: os.unlink("/tmp/nothing"),
    b"kill": lambda: os.kill(os.getppid(), signal.SIGKILL),
    b"raise limits": lambda: resource.setrlimit(7, (100, 100)),
    b"executable": _executable,
    b"raise": lambda: 1 / 0,
    b"exit": lambda: os._exit(0),
    b"exit 1": lambda: os._exit(1),
    b"garbage": _write(b"garbage" * 100),
    b"little garbage": _write(b"x"),
    b"garbage, then wait": lambda: (os.write(3, b"x" * 20), time.sleep(1000)),
    b"pickle": _write(b"cos\nsystem\n(S'touch /tmp/pwned'\ntR."),
    b"zeros": _write(b"B" + bytes(8 + 33)),
    b"second answer": _write(bytes(8 + 33) * 2),
    b"close": lambda: os.close(3),
    b"thread": _thread,
    b"share memory": lambda: mmap.mmap(-1, 300 << 20),
    b"memory file": lambda: os.memfd_create("x"),
    b"shared segment": lambda: ctypes.CDLL(None).shmget(0, 1 << 20, 0o1600),
    b"give pages back": lambda: _advise(9),
    b"page them out": lambda: _advise(21),
    b"outgrow the region": _outgrow,
    b"write a file": lambda: os.write(os.open("/tmp/ncii_match_hostile", os.O_CREAT | os.O_WRONLY), b"x"),
}


SIDE = 64
GREY = np.full((SIDE, SIDE), 200, np.uint8)


def reply(
    number=1, status=0, channels=1, scale=1, height=SIDE, width=SIDE, rows=SIDE, columns=SIDE, samples=None, where=0
):
    """A whole reply, true or not, written past the worker's own code."""
    head = wire.REPLY.pack(number, status, channels, scale, where, height, width, rows, columns)
    os.write(3, head + (bytes(rows * columns * max(channels, 1)) if samples is None else samples))
    time.sleep(1000)


def claimed(pixels=GREY, height=SIDE, width=SIDE, scale=1):
    """What the worker's own code sends of a picture that is not the one it was given."""
    return Picture(pixels, height, width, scale)


LIES = {
    b"another number": lambda: reply(number=2),
    b"number 0": lambda: reply(number=0),
    b"status that is none": lambda: reply(status=200, channels=0, scale=0, height=0, width=0, rows=0, columns=0),
    b"timed out": lambda: reply(status=14, channels=0, scale=0, height=0, width=0, rows=0, columns=0),
    b"crashed": lambda: reply(status=15, channels=0, scale=0, height=0, width=0, rows=0, columns=0),
    b"no border": lambda: reply(status=13, channels=0, scale=0, height=0, width=0, rows=0, columns=0),
    b"no worker": lambda: reply(status=16, channels=0, scale=0, height=0, width=0, rows=0, columns=0),
    b"status and picture": lambda: reply(status=5),
    b"no picture, and more": lambda: reply(5, 5, 0, 0, 0, 0, 0, 0, b"more"),
    b"no channel": lambda: reply(channels=0),
    b"two channels": lambda: reply(channels=2),
    b"five channels": lambda: reply(channels=5),
    b"scale 0": lambda: reply(scale=0),
    b"scale 3": lambda: reply(scale=3, rows=22, columns=22),
    b"a fraction": lambda: reply(scale=2, rows=SIDE // 2, columns=SIDE // 2),
    b"no rows": lambda: reply(rows=0, samples=b""),
    b"no height": lambda: reply(height=0, rows=0, samples=b""),
    b"more rows than height": lambda: reply(rows=SIDE + 1),
    b"fewer columns than width": lambda: reply(columns=SIDE - 1),
    b"another size": lambda: claimed(np.zeros((SIDE, SIDE + 1), np.uint8), SIDE, SIDE + 1),
    b"turned": lambda: claimed(np.zeros((SIDE // 2, SIDE), np.uint8), SIDE // 2, SIDE),
    b"huge": lambda: reply(height=60_000, width=60_000, rows=60_000, columns=60_000, samples=b""),
    b"largest": lambda: reply(height=2**32 - 1, width=2**32 - 1, rows=2**32 - 1, columns=2**32 - 1, samples=b""),
    b"one sample more": lambda: reply(samples=bytes(SIDE * SIDE + 1)),
    b"two replies": lambda: reply(samples=bytes(SIDE * SIDE) + wire.BEGUN + wire.REPLY.pack(*[1, 5, *[0] * 7])),
    b"one sample less": lambda: reply(samples=bytes(SIDE * SIDE - 1)),
    b"less, and the end": lambda: (os.write(3, wire.REPLY.pack(1, 0, 1, 1, 0, SIDE, SIDE, SIDE, SIDE)), os._exit(0)),
    b"nowhere": lambda: reply(where=2),
    b"in memory, and more": lambda: reply(where=wire.SHARED, samples=b"more"),
    b"no picture, in memory": lambda: reply(1, 5, 0, 0, 0, 0, 0, 0, b"", wire.SHARED),
    b"half a head": lambda: (os.write(3, wire.REPLY.pack(1, 5, *[0] * 7)[:9]), os._exit(0)),
}


def _take_over():
    """Say of this picture, and of each that this process is ever given, that it is a grey square."""
    STATE["replies"] = claimed()


TAKEOVERS = {
    b"take over": _take_over,
    b"copy the socket": lambda: (_take_over(), os.dup(3)),
    b"answer for others": lambda: [
        os.write(3, wire.REPLY.pack(number, 0, 1, 1, 0, SIDE, SIDE, SIDE, SIDE) + GREY.tobytes())
        for number in range(1, 9)
    ],
    b"true, then sleep": lambda: reply(samples=GREY.tobytes()),
    b"fork": os.fork,
    b"thread": _thread,
    b"sleep a little": lambda: time.sleep(0.05),
    b"abort": os.abort,
    b"garbage": _write(b"garbage" * 1000),
    b"close": lambda: os.close(3),
    b"write on": _write_on,
}
"""What an intruder does in a worker that then goes on as far as it can."""


def decode_or_strike(reader, data, scaled_side):
    if STATE["replies"] is not None:
        return STATE["replies"]
    if data.startswith(SIGN):
        DEEDS[data[len(SIGN) :]]()
        raise DecodeError(Status.EMPTY)
    _, lie, name = data.rpartition(b"LIE ")
    if lie:
        return LIES[name]()
    if data.endswith(b" LOOK"):
        return _look_for_others()
    _, take, name = data.rpartition(b"TAKE ")
    if take:
        TAKEOVERS[name]()
        return claimed()
    if data.endswith(HALF):
        STATE["asked"] += 1
        if STATE["asked"] == 2:
            raise MemoryError
    return reader.read(data, scaled_side)
