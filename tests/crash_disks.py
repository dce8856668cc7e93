"""Disks that really are full: what does not fit is written in part, as far as it goes, and then refused."""

import os
import subprocess
from functools import cache
from pathlib import Path

import crashes

PAGE = 4096
AS_ROOT = ["sudo", "-n"] if os.geteuid() and os.environ.get("NCII_MATCH_TEST_STRACE") else []
"""Where nothing may be left out, another user may have to ask."""

LENGTHS = (0, 1, 7, 8, 31, 32, 33, 100, 300, 512, 1000, 2000, 3000, 4095, 4096, 4097, 8192, 16384, 24000, 32767, 32768,
           32769, 36864, 36896, 40000, 49152, 65536, 98304, 131072)  # fmt: skip


def limits(stage):
    """Lengths beyond which no file may grow. The kernel writes up to there, and says EFBIG for the next byte."""
    longest = max((file.stat().st_size for file in stage.template.rglob("*") if file.is_file()), default=0)
    return sorted({*LENGTHS, *(length for length in range(longest, longest + 16 * PAGE, PAGE))})


def limit(stage, length):
    return stage.trial(lambda work: crashes.run(work, stage.place, limit=length))


@cache
def may_mount():
    """Whether a disk of a given size can be made here."""
    place = Path("/tmp") / f"ncii_match_mount_{os.getpid()}"
    place.mkdir()
    try:
        if not mount(place, 16):
            return False
        unmount(place)
        return True
    finally:
        place.rmdir()


def mount(place, pages, *more):
    options = ",".join([f"size={pages * PAGE}", f"uid={os.getuid()}", f"gid={os.getgid()}", "mode=700", *more])
    command = [*AS_ROOT, "mount", "-t", "tmpfs", "-o", options, "none", str(place)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def unmount(place):
    subprocess.run([*AS_ROOT, "umount", "-l", str(place)], check=True)


def pages(stage):
    """Pages that the disk has beyond what the bank takes at the beginning."""
    return [*range(24), *range(24, 96, 3)] if may_mount() else []


def disk(stage, free):
    """The bank on a disk of its own with so many free pages; before it is looked at, the disk gets larger."""
    home = stage.path
    stage.path = home.with_name("disk") / "bank"
    stage.path.parent.mkdir(exist_ok=True)
    taken = sum(1 + -(-one.stat().st_size // PAGE) * one.is_file() for one in [*stage.template.rglob("*")]) + 2
    if not mount(stage.path.parent, 4 * taken + 1000):
        raise RuntimeError("the disk cannot be mounted any more")
    try:
        return stage.trial(lambda work: crowded(stage, work, free), lambda: mount_larger(stage))
    finally:
        unmount(stage.path.parent)
        stage.path = home


def crowded(stage, work, free):
    """Only so many pages are left while the work is done."""
    place = stage.path.parent
    has = os.statvfs(place)
    if not mount(place, max(1, has.f_blocks - has.f_bavail + free), "remount"):  # a size of 0 would be no limit
        raise RuntimeError("the disk cannot be made smaller")
    return crashes.run(work, stage.place)


def mount_larger(stage):
    if not mount(stage.path.parent, 1 << 14, "remount"):
        raise RuntimeError("the disk cannot be made larger")
