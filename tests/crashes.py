"""One piece of work in a process of its own, killed or failed at one system call.

Starting Python takes a second, and there are thousands of calls: so a process that has everything loaded forks, the
child waits, strace attaches with one injection, and the child begins. The kernel delivers a SIGKILL that is
injected at the entry to a call before the call takes effect; what is there after call N is there before call N + 1,
so killing at the entry to every call, and letting it finish once, leaves every state behind that a kill can leave.
What the child has to say goes through shared memory, since a pipe would need calls of its own.
"""

import contextlib
import ctypes
import json
import mmap
import os
import re
import resource
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass

from ncii_match.errors import BankError, NciiMatchError

WRITES = (
    "write", "pwrite64", "writev", "pwritev", "pwritev2", "openat", "open", "creat", "rename", "renameat", "renameat2",
    "link", "linkat", "symlink", "symlinkat", "unlink", "unlinkat", "mkdir", "mkdirat", "rmdir", "fsync", "fdatasync",
    "sync_file_range", "ftruncate", "truncate", "fallocate", "copy_file_range", "sendfile", "splice", "chmod", "fchmod",
    "fchmodat", "chown", "fchown", "fchownat", "lchown", "utimensat", "futimesat", "utime", "utimes", "msync",
)  # fmt: skip
"""System calls that change a file, a directory, or what of them is on the disk. Of ``openat`` those that create."""

OPENS = ("openat", "open")
SHARED_BYTES = 1 << 14
GO = SHARED_BYTES - 1
"""The byte by which the child is told to begin."""
PATIENCE = 120.0
PR_SET_PTRACER, ANYBODY = 0x59616D61, -1


@dataclass(frozen=True)
class Call:
    """The nth call of one name that the work makes."""

    name: str
    nth: int

    def __str__(self):
        return f"{self.name}#{self.nth}"


@dataclass(frozen=True)
class Ended:
    """How the work ended. ``said``: ``done``, ``error``, or empty when it was killed before it could say anything."""

    killed: bool
    said: str
    kind: str = ""
    ours: bool = False
    message: str = ""
    stderr: str = ""


def child(work, talk, limit, stderr):
    """Never returns. ``work`` is called with what it calls when it is done; closing files comes after that."""

    def tell(**what):
        talk.seek(0)
        talk.write(json.dumps(what).encode()[: GO - 1] + b"\n")

    code = 0
    try:
        os.dup2(stderr, 2)
        with contextlib.suppress(AttributeError, OSError):
            ctypes.CDLL(None).prctl(PR_SET_PTRACER, ANYBODY, 0, 0, 0)  # where only ancestors may trace
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        while not talk[GO]:
            time.sleep(0.0005)
        work(lambda: tell(said="done"))
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException as error:  # noqa: BLE001
        ours = isinstance(error, NciiMatchError) and isinstance(error, BankError)
        tell(said="error", kind=type(error).__name__, ours=ours, message=str(error)[:2000])
    finally:
        os._exit(code)


def run(work, place, *strace, limit=None):
    """Fork, do the work under strace with these options (without strace when there are none), and say how it ended."""
    talk = mmap.mmap(-1, SHARED_BYTES)
    with open(place / "stderr", "w+b") as stderr:
        pid = os.fork()
        if pid == 0:
            child(work, talk, limit, stderr.fileno())
        tracer = attach(pid, strace) if strace else None
        talk[GO] = 1
        _, status = os.waitpid(pid, 0)
        if tracer is not None:
            tracer.communicate(timeout=PATIENCE)
        stderr.seek(0)
        printed = stderr.read().decode(errors="replace")
    line = talk[:GO].partition(b"\n")[0]
    told = json.loads(line) if line.strip(b"\0") else {"said": ""}
    talk.close()
    return Ended(os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, stderr=printed, **told)


def attach(pid, options):
    """Returns when strace says that it holds the child. (A child that stops itself sometimes runs away from it.)"""
    tracer = subprocess.Popen(
        ["strace", "-f", "-p", str(pid), *options], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    line = tracer.stderr.readline().decode(errors="replace")
    if "attached" not in line:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise RuntimeError(f"strace did not attach: {line}")
    return tracer


def why_not(place):
    """Why processes cannot be traced here; None when they can."""
    if not shutil.which("strace"):
        return "strace is not installed"
    try:
        calls, _ = calls_of(lambda done: (place / "tried").mkdir(), place)
    except (RuntimeError, OSError) as error:
        return str(error)
    return None if any(call.name.startswith("mkdir") for call in calls) else "strace does not see what a process does"


def calls_of(work, place):
    """Every call of ``WRITES`` that the work makes, in order, and how it ended."""
    log = place / "calls"
    ended = run(work, place, "-o", str(log), "-e", "trace=" + ",".join(f"?{name}" for name in WRITES))
    counts, calls = dict.fromkeys(WRITES, 0), []
    for line in log.read_text(errors="replace").splitlines():
        found = re.match(r"\d+\s+(\w+)\(", line)
        if found and found[1] in counts:
            counts[found[1]] += 1
            if found[1] not in OPENS or "O_CREAT" in line:
                calls.append(Call(found[1], counts[found[1]]))
    log.unlink()
    return calls, ended


def not_on_the_disk(work, place, pointer):
    """What has not reached the disk when the pointer file is replaced: contents, and names in directories.

    A kill loses nothing that was written; a power cut does, so the order of the calls must be right.
    """
    log = place / "calls"
    run(
        work, place, "-y", "-o", str(log), "-e", "trace=openat,write,fsync,?mkdir,?mkdirat,?rename,?renameat,?renameat2"
    )
    contents, names = set(), set()  # paths whose content, or whose entries, are not on the disk yet
    for line in log.read_text(errors="replace").splitlines():
        call, quoted = re.match(r"\d+\s+(\w+)\(", line), re.findall(r'"([^"]*)"', line)
        opened = re.search(r"\(\d+<([^>]*)>", line)
        if call is None or re.search(r"= -1 E\w+", line):
            continue
        if call[1] == "write" and opened:
            contents.add(opened[1])
        elif call[1] == "fsync":
            contents.discard(opened[1])
            names.discard(opened[1])
        elif call[1] in OPENS and "O_CREAT" in line:
            contents.add(quoted[0])
            names.add(os.path.dirname(quoted[0]))
        elif call[1].startswith("mkdir"):
            names.add(os.path.dirname(quoted[0]))
        elif call[1].startswith("rename"):
            old, new = quoted[-2:]
            if os.path.basename(new) == pointer:
                return sorted(one for one in contents | names if "snapshots" in one or "bases" in one or old in one)
            contents = {new + one[len(old) :] if f"{one}/".startswith(f"{old}/") else one for one in contents}
            names = {new + one[len(old) :] if f"{one}/".startswith(f"{old}/") else one for one in names}
            names.add(os.path.dirname(new))
    return ["the pointer was never replaced"]


def killed_at(work, place, call):
    return run(work, place, *injection(call, "signal=SIGKILL"))


def failed_at(work, place, call, error):
    return run(work, place, *injection(call, f"error={error}"))


def injection(call, what):
    return ("-o", os.devnull, "-e", f"trace={call.name}", "-e", f"inject={call.name}:{what}:when={call.nth}")
