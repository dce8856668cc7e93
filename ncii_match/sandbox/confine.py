"""What a worker gives up before it sees the first picture, for good."""

import ctypes
import os
import platform
import resource
import signal
import sys
from functools import cache
from pathlib import Path
from typing import Any

from ncii_match.sandbox import syscalls

LEVELS = ("none", "rlimits", "seccomp")
"""From weak to strong. ``rlimits``: memory, processor time and descriptors are bounded, and nothing can be written to
files, but the process may open files and sockets. ``seccomp``: it cannot open anything, start a process or a thread,
reach the network or another process, share memory beyond its region, or make memory executable."""

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_GET_SECCOMP, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 4, 21, 22, 38
_SECCOMP_MODE_FILTER = 2
_PROT_READ_WRITE = 3

_ADDRESSES_BESIDE = 64 << 20
"""Bytes of addresses on top of the memory: what is reserved without being used counts."""

_ADDRESSES_OF_THREADS = 1 << 30
"""Bytes of addresses where threads are allowed: each has a stack and an arena of the C library."""


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_char_p))


@cache
def _libc_prctl() -> Any:
    """Looked up before the fork: each look makes a class, which in a fresh worker copies a hundred pages."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
    return prctl


def _prctl(option: int, value: int = 0, third: int = 0) -> bool:
    """Whether the kernel said yes."""
    return bool(_libc_prctl()(option, value, third, 0, 0) >= 0)


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


class Confinement:
    """How workers are confined; made once, before they are forked, and applied in each.

    Parameters
    ----------
    memory : int
        Bytes on top of what this process has now.
    cpu : int
        Seconds of processor time in all.
    descriptors : int
        The lowest number of a descriptor that can no longer be opened.
    seccomp : bool
        Whether the filter of system calls is installed, where the kernel has one.
    threads : bool
        Whether it may start threads. Only for a build of libwebp that cannot decode without.
    """

    def __init__(self, memory: int, cpu: int, descriptors: int, *, seccomp: bool = True, threads: bool = False) -> None:
        limits = [
            ("RLIMIT_CPU", cpu),
            ("RLIMIT_NOFILE", descriptors),
            ("RLIMIT_FSIZE", 0),
            ("RLIMIT_CORE", 0),
            ("RLIMIT_MSGQUEUE", 0),
            ("RLIMIT_MEMLOCK", 0),
        ]
        if not threads:
            limits.append(("RLIMIT_NPROC", 0))  # it counts all that the user runs, so 0 is the only bound
        if sys.platform == "linux":
            fields = Path("/proc/self/statm").read_text().split()
            addresses, data = (int(fields[at]) * resource.getpagesize() for at in (0, 5))
            beside = _ADDRESSES_OF_THREADS if threads else _ADDRESSES_BESIDE
            # Of what the worker starts with most is shared with the fork server: the memory is for the picture alone.
            limits += [("RLIMIT_DATA", data + memory), ("RLIMIT_AS", addresses + memory + beside)]
            _take_execution_from_writable_pages()
            _libc_prctl()
        self._limits = [(getattr(resource, name), limit) for name, limit in limits if hasattr(resource, name)]
        machine = syscalls.MACHINES.get(platform.machine())
        is_filtered = seccomp and sys.platform == "linux" and machine is not None
        self._steps = syscalls.program(machine, threads=threads) if is_filtered and machine is not None else b""

    def apply(self) -> str:
        """Confine this process as far as the kernel lets it, and name the level reached."""
        for number, limit in self._limits:
            hard = resource.getrlimit(number)[1]
            bound = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
            resource.setrlimit(number, (bound, bound))
        if sys.platform != "linux":
            return "rlimits"
        _prctl(_PR_SET_DUMPABLE, 0)  # nobody reads the picture out of its memory, or out of a core dump
        if not _prctl(_PR_SET_NO_NEW_PRIVS, 1) or not self._steps:
            return "rlimits"
        steps = syscalls.for_process(self._steps, os.getpid())
        filter_program = _Program(len(steps) // 8, steps)
        return (
            "seccomp" if _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(filter_program)) else "rlimits"
        )


def _take_execution_from_writable_pages() -> None:
    """Some builds of ctypes leave a page that can be written and executed, for callbacks, of which there are none."""
    mprotect = ctypes.CDLL(None, use_errno=True).mprotect
    mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    for line in Path("/proc/self/maps").read_text().splitlines():
        addresses, rights = line.split(maxsplit=2)[:2]
        if rights.startswith("rwx"):
            start, end = (int(address, 16) for address in addresses.split("-"))
            if mprotect(start, end - start, _PROT_READ_WRITE):
                raise OSError(ctypes.get_errno(), "a page stays writable and executable")
