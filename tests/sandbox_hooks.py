"""What hostile pictures make of a worker: loaded by the fork server in place of the function that hashes."""

import ctypes
import os
import signal
import socket
import subprocess
import threading
import time

import numpy as np

from ncii_match.outcomes import Status
from ncii_match.values import Hashes, View

SIGN = b"HOSTILE "


def _write(data):
    return lambda: os.write(3, data)


def _open():
    with open("/etc/hostname", "rb") as file:
        file.read()


def _executable():
    import mmap

    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)


def _loop():
    while True:
        pass


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
    b"raise limits": lambda: __import__("resource").setrlimit(7, (100, 100)),
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
}


def hash_or_strike(one, data):
    if data.startswith(SIGN):
        DEEDS[data[len(SIGN) :]]()
        return one.hash([b""])
    if data.startswith(b"LIE "):
        return lies(one)[data[4:]]
    if data.startswith(b"HALF "):
        return without_memory_to_trim(one.hash([data[5:]]))
    return one.hash([data])


def without_memory_to_trim(found):
    """As when there was enough for the picture, and not for the picture without its border."""
    trimmed = found.view >= View.TRIMMED_UPRIGHT
    return Hashes(
        found.algorithm,
        np.where(trimmed[:, None], np.uint8(0), found.bits),
        np.where(trimmed, np.uint8(255), found.quality),
        np.where(trimmed, np.uint8(Status.OUT_OF_MEMORY), found.status),
        found.source_row,
        found.view,
    )


def lies(one):
    good = Hashes(one.algorithm, np.full((1, one.algorithm.nbytes), 7, np.uint8), np.array([100], np.uint8))

    def changed(**columns):
        arrays = {"bits": good.bits, "quality": good.quality, "status": np.zeros(1, np.uint8), **columns}
        return Hashes(one.algorithm, **arrays)

    return {
        b"quality": changed(quality=np.array([101], np.uint8)),
        b"status": changed(status=np.array([200], np.uint8)),
        b"crashed": changed(status=np.array([14], np.uint8)),
        b"bits with a status": changed(status=np.array([5], np.uint8)),
        b"too many": Hashes.concat([good, good]),
        b"too few": Hashes(one.algorithm, np.zeros((0, one.algorithm.nbytes), np.uint8)),
        b"short": type("Short", (), {"bits": good.bits[:, :5], "quality": good.quality, "status": good.status})(),
    }
