"""The seccomp filter of a worker: a list of the system calls that decoding needs, assembled by hand.

What is on no list fails with EPERM, which libraries that only ask (for a cache, a setting, a module) live with. What
decoding never asks for, and an intruder wants first, ends the process.
"""

import errno
from struct import pack
from typing import NamedTuple

ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06

_PROT_EXEC = 0x4
_MAP_SHARED = 0x1  # also in MAP_SHARED_VALIDATE
_ADVICE = (0, 1, 2, 3, 4, 8, 14, 15, 22, 23)
"""Of ``madvise``: normal, random, sequential, will need, do not need, free, huge pages or none, populate."""
_CLONE_THREAD = 0x00010000
_CLONE_NEW = 0x7E020080  # every kind of namespace

_NUMBER, _ARCHITECTURE = 0, 4


class Machine(NamedTuple):
    """Numbers of one architecture: its name for the kernel's audit, and those of its system calls."""

    audit: int
    x32: bool
    mmap: int
    mprotect: int
    madvise: int
    clone: int
    tgkill: int
    allowed: tuple[int, ...]
    killed: tuple[int, ...]


_CLONE3 = 435

MACHINES = {
    "x86_64": Machine(
        audit=0xC000003E,
        x32=True,
        mmap=9,
        mprotect=10,
        madvise=28,
        clone=56,
        tgkill=234,
        # read write close fstat poll lseek munmap brk rt_sigaction rt_sigprocmask rt_sigreturn readv writev
        # sched_yield mremap nanosleep getpid sendto recvfrom exit gettimeofday getrusage sysinfo sigaltstack
        # gettid time futex sched_getaffinity restart_syscall clock_gettime clock_getres clock_nanosleep exit_group
        # set_robust_list getcpu getrandom membarrier rseq
        allowed=(
            *(0, 1, 3, 5, 7, 8, 11, 12, 13, 14, 15, 19, 20, 24, 25, 35, 39, 44, 45, 60, 96, 98, 99),
            *(186, 201, 202, 204, 219, 228, 229, 230, 231, 273, 309, 318, 324, 334),
        ),
        # socket connect accept bind listen socketpair fork vfork execve kill ptrace mount tkill unshare
        # perf_event_open setns process_vm_readv process_vm_writev bpf execveat userfaultfd io_uring_setup
        # pidfd_send_signal shmget shmat memfd_create memfd_secret
        killed=(
            *(41, 42, 43, 49, 53, 57, 58, 59, 62, 101, 165, 200, 272, 298, 308, 310, 311, 321, 322, 323, 424, 425),
            *(29, 30, 319, 447),
        ),
    ),
    "aarch64": Machine(
        audit=0xC00000B7,
        x32=False,
        mmap=222,
        mprotect=226,
        madvise=233,
        clone=220,
        tgkill=131,
        # the same calls; poll is ppoll here, and there is no time
        allowed=(
            *(63, 64, 57, 80, 73, 62, 215, 214, 134, 135, 139, 65, 66, 124, 216, 101, 172, 206, 207, 93, 169),
            *(165, 179, 132, 178, 98, 123, 128, 113, 114, 115, 94, 99, 168, 278, 283, 293),
        ),
        # the same calls; there is no fork and no vfork
        killed=(
            *(198, 203, 202, 200, 201, 199, 221, 129, 117, 40, 130, 97, 241, 268, 270, 271, 280, 281, 282, 424, 425),
            *(194, 196, 279, 447),
        ),
    ),
}
"""By ``platform.machine()``."""


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return pack("<HBBI", code, if_true, if_false, value)


def _argument(number: int) -> int:
    """Where the low half of an argument is; both architectures are little-endian."""
    return 16 + 8 * number


def _answer(number: int, answer: int) -> list[bytes]:
    return [_step(_EQUAL, number, 0, 1), _step(_RETURN, answer)]


def _case(number: int, steps: list[bytes]) -> list[bytes]:
    """Steps for one call only, the last of which must return."""
    return [_step(_EQUAL, number, 0, len(steps)), *steps]


_PID = 0x7A7A7A7A
"""In place of the process's number, larger than any; see ``for_process``."""


def for_process(steps: bytes, pid: int) -> bytes:
    """A filter that ``program`` has made, for one process."""
    return steps.replace(pack("<I", _PID), pack("<I", pid))


def program(machine: Machine, *, threads: bool = False) -> bytes:
    """The filter as the kernel takes it, 8 bytes an instruction, once it is ``for_process``.

    threads : whether threads may be started.
    """
    no_exec = [
        _step(_LOAD, _argument(2)),
        _step(_ANY_BIT, _PROT_EXEC, 0, 1),
        _step(_RETURN, ERRNO | errno.EACCES),
        _step(_RETURN, ALLOW),
    ]
    # What is shared counts towards no limit on memory, and stays when the process has gone.
    no_sharing = [_step(_LOAD, _argument(3)), _step(_ANY_BIT, _MAP_SHARED, 0, 1), _step(_RETURN, KILL)]
    steps = [
        _step(_LOAD, _ARCHITECTURE),
        _step(_EQUAL, machine.audit, 1, 0),
        _step(_RETURN, KILL),
        _step(_LOAD, _NUMBER),
    ]
    if machine.x32:  # the second table of numbers that the same processor has
        steps += [_step(_AT_LEAST, 0x40000000, 0, 1), _step(_RETURN, KILL)]
    for number in machine.allowed:
        steps += _answer(number, ALLOW)
    for number in machine.killed:
        steps += _answer(number, KILL)
    steps += _case(machine.mmap, [*no_sharing, *no_exec])
    steps += _case(machine.mprotect, no_exec)
    # Others give back pages that the host reads, or spoil them for everybody, as an administrator may.
    advice = [_step(_LOAD, _argument(2))]
    for number in _ADVICE:
        advice += _answer(number, ALLOW)
    steps += _case(machine.madvise, [*advice, _step(_RETURN, ERRNO | errno.EINVAL)])
    # Some builds of libwebp start a thread for pictures from 512 pixels of width and fail where they cannot.
    steps += _case(
        machine.clone,
        [
            _step(_LOAD, _argument(0)),
            _step(_ANY_BIT, _CLONE_NEW, 2, 0),
            _step(_ANY_BIT, _CLONE_THREAD, 0, 1),
            _step(_RETURN, ALLOW if threads else ERRNO | errno.EAGAIN),
            _step(_RETURN, KILL),
        ],
    )
    # Its flags lie in memory, where no filter can look. Told that there is no such call, glibc uses clone.
    steps += _answer(_CLONE3, ERRNO | errno.ENOSYS)
    steps += _case(
        machine.tgkill,  # abort() signals the process that calls it
        [
            _step(_LOAD, _argument(0)),
            _step(_EQUAL, _PID, 0, 1),
            _step(_RETURN, ALLOW),
            _step(_RETURN, KILL),
        ],
    )
    steps.append(_step(_RETURN, ERRNO | errno.EPERM))
    return b"".join(steps)
