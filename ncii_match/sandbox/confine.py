"""What a worker gives up before it sees the first picture, for good."""

import ctypes
import os
import platform
import resource
import signal
import sys
from pathlib import Path

from ncii_match.sandbox import syscalls

LEVELS = ("none", "rlimits", "seccomp")
"""From weak to strong. ``rlimits``: memory, processor time and descriptors are bounded, and nothing can be written to
files, but the process may open files and sockets. ``seccomp``: it cannot open anything, start a process, reach
the network or another process, or make memory executable."""

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_GET_SECCOMP, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 4, 21, 22, 38
_SECCOMP_MODE_FILTER = 2

_ADDRESSES_BESIDE = 1 << 30
"""Bytes of addresses on top of the memory: what is reserved without being used (malloc's arenas, stacks) counts."""


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_char_p))


def _prctl(option: int, value: int = 0, third: int = 0) -> bool:
    """Whether the kernel said yes."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
    return bool(prctl(option, value, third, 0, 0) >= 0)


def level() -> str:
    """The level of ``LEVELS`` that a worker would reach on this machine, found without starting one."""
    if sys.platform == "linux" and platform.machine() in syscalls.MACHINES and _prctl(_PR_GET_SECCOMP):
        return "seccomp"
    return "rlimits"


def die_with_parent(parent: int) -> None:
    """End with the process that forked this one, which must be single-threaded: the kernel looks at the thread."""
    if sys.platform == "linux":
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _limit(name: str, most: int) -> None:
    which = getattr(resource, name, None)
    if which is None:
        return
    hard = resource.getrlimit(which)[1]
    bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(which, (bound, bound))


def _bound(memory: int, cpu: int, descriptors: int) -> None:
    if sys.platform == "linux":
        fields = Path("/proc/self/statm").read_text().split()
        addresses, data = (int(fields[at]) * resource.getpagesize() for at in (0, 5))
        # Of what the worker starts with most is shared with the fork server, so the memory is for the picture alone.
        _limit("RLIMIT_DATA", data + memory)
        _limit("RLIMIT_AS", addresses + memory + _ADDRESSES_BESIDE)
    # RLIMIT_NPROC would count the threads that libwebp needs, and those of everything else that the user runs.
    for name, most in (
        ("RLIMIT_CPU", cpu),
        ("RLIMIT_NOFILE", descriptors),
        ("RLIMIT_FSIZE", 0),
        ("RLIMIT_CORE", 0),
        ("RLIMIT_MSGQUEUE", 0),
        ("RLIMIT_MEMLOCK", 0),
    ):
        _limit(name, most)


def confine(memory: int, cpu: int, descriptors: int) -> str:
    """Confine this process as far as the kernel lets it, and name the level reached.

    memory : bytes on top of what it has now. cpu : seconds of processor time in all. descriptors : the lowest number
    of a descriptor that can no longer be opened.
    """
    _bound(memory, cpu, descriptors)
    machine = syscalls.MACHINES.get(platform.machine())
    if sys.platform != "linux":
        return "rlimits"
    _prctl(_PR_SET_DUMPABLE, 0)  # nobody reads the picture out of its memory, or out of a core dump
    if not _prctl(_PR_SET_NO_NEW_PRIVS, 1) or machine is None:
        return "rlimits"
    steps = syscalls.program(machine, os.getpid())
    given = _Program(len(steps) // 8, steps)
    return "seccomp" if _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(given)) else "rlimits"
