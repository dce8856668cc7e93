"""Private files, replaced whole; locks between processes; regular files; digests."""

import contextlib
import errno
import os
import resource
import signal
import stat
import threading
import time
from pathlib import Path

import pytest

from ncii_match.errors import InputError
from ncii_match.files import atomic, digests, locks, private, regular
from ncii_match.files.locks import FileLock

PATIENCE = 60.0
UMASKS = (0, 0o022, 0o077, 0o277, 0o777)


def mode_of(path):
    return stat.S_IMODE(path.lstat().st_mode)


@contextlib.contextmanager
def umask(mask):
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def forked(work):
    """Do this in a forked process, and say how that ended."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitpid(pid, 0)[1]


class Child:
    """A forked process that lives until it is killed."""

    def __init__(self, first=lambda: None):
        reading, writing = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                first()
                os.write(writing, b"x")
                signal.pause()
            finally:
                os._exit(1)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            assert pipe.read(1) == b"x", "the child failed"

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file"


@pytest.fixture(params=["replacing", "output_file"])
def writer(request):
    return getattr(atomic, request.param)


# --- private ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mask", UMASKS)
def test_files_are_their_owners_under_any_umask(tmp_path, mask):
    def write(function, name):
        with function(tmp_path / name) as file:
            file.write(b"content")

    with umask(mask):
        write(private.create, "create")
        write(private.overwrite, "overwrite")
        write(atomic.replacing, "replacing")
        write(atomic.output_file, "output")
        private.append(tmp_path / "append", b"content")
        private.write_new(tmp_path / "new", b"content")
        atomic.replace_content(tmp_path / "content", b"content")
        digests.write_described(tmp_path / "described", b"content")
    paths = sorted(tmp_path.iterdir())
    assert len(paths) == 8
    assert {mode_of(path) for path in paths} == {0o600}
    assert {path.read_bytes() for path in paths} == {b"content"}


@pytest.mark.parametrize("mask", UMASKS)
def test_folders_and_locks_are_nobody_elses_under_any_umask(tmp_path, mask):
    with umask(mask):
        private.make_folder(tmp_path / "folder")
        FileLock.create(tmp_path / "lock").close()
    assert mode_of(tmp_path / "folder") == 0o700 & ~mask
    assert mode_of(tmp_path / "lock") == 0o600 & ~mask


@pytest.mark.parametrize("write", [private.overwrite, atomic.replacing, atomic.output_file])
def test_what_others_could_read_is_private_when_it_is_written_again(path, write):
    path.write_bytes(b"long content of before")
    path.chmod(0o644)
    with write(path) as file:
        file.write(b"new")
    assert (path.read_bytes(), mode_of(path)) == (b"new", 0o600)


def test_an_appended_file_keeps_what_it_held_and_is_private(path):
    path.write_bytes(b"a")
    path.chmod(0o644)
    private.append(path, b"b")
    assert (path.read_bytes(), mode_of(path)) == (b"ab", 0o600)


@pytest.mark.parametrize("kind", ["file", "link", "link to nothing", "fifo", "folder"])
@pytest.mark.parametrize("write", [private.create, lambda path: private.write_new(path, b"new")])
def test_a_new_file_takes_nobodys_name(tmp_path, path, kind, write):
    (tmp_path / "other").write_bytes(b"other")
    plant(path, kind)
    with pytest.raises(FileExistsError):
        write(path)
    assert (tmp_path / "other").read_bytes() == b"other"
    assert not (tmp_path / "nothing").exists()


def plant(path, kind):
    if kind == "file":
        path.write_bytes(b"of a process that was killed")
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(path.with_name("other" if kind == "link" else "nothing"))


# --- atomic -----------------------------------------------------------------------------------------------------------


def test_a_file_takes_its_name_when_it_is_whole(path, writer):
    path.write_bytes(b"old")
    with writer(path) as file:
        file.write(b"new" * 100_000)
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new" * 100_000
    assert list(path.parent.iterdir()) == [path]


def test_what_fails_leaves_the_old_file_and_no_draft(path, writer):
    path.write_bytes(b"old")
    with pytest.raises(TypeError), writer(path) as file:
        file.writelines([b"new", None])
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("at", ["write", "fsync", "replace"])
def test_a_process_killed_at_any_point_leaves_the_old_file_and_the_next_one_goes_on(path, writer, at):
    def kill(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    def write():
        if at != "write":
            setattr(os, at, kill)
        with writer(path) as file:
            file.write(b"new")
            file.flush()
            if at == "write":
                kill()

    path.write_bytes(b"old")
    assert os.WTERMSIG(forked(write)) == signal.SIGKILL
    assert [entry.name for entry in sorted(path.parent.iterdir())] == [".file.draft", "file"]
    assert path.read_bytes() == b"old"
    with writer(path) as file:
        file.write(b"newer")
    assert path.read_bytes() == b"newer"
    assert list(path.parent.iterdir()) == [path]


def test_a_full_disk_leaves_the_old_file_and_is_told(path, writer):
    path.write_bytes(b"old")

    def write():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        error = OSError if writer is atomic.replacing else InputError
        with pytest.raises(error, match="File too large"), writer(path) as file:
            file.writelines([b"x" * 20_000] * 10)

    assert forked(write) == 0
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_disk_that_fails_late_leaves_the_old_file(path, writer, monkeypatch, call):
    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    path.write_bytes(b"old")
    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        error = OSError if writer is atomic.replacing else InputError
        with pytest.raises(error, match="Input/output error"), writer(path) as file:
            file.write(b"new")
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("kind", ["file", "link", "link to nothing", "fifo"])
def test_what_stands_in_the_drafts_name_is_removed_and_not_written_to(tmp_path, path, writer, kind):
    (tmp_path / "other").write_bytes(b"other")
    plant(tmp_path / ".file.draft", kind)
    with writer(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"
    assert (tmp_path / "other").read_bytes() == b"other"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "other"]


def test_an_output_that_cannot_be_written_is_an_error_of_the_caller(tmp_path):
    (tmp_path / "folder" / "inside").mkdir(parents=True)
    for name, reason in (("none/file", "No such file or directory"), ("folder", "Is a directory")):
        with (
            pytest.raises(InputError, match=f"{name} cannot be written: {reason}"),
            atomic.output_file(tmp_path / name) as file,
        ):
            file.write(b"new")
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]


def test_writers_with_marks_of_their_own_do_not_mix(path):
    contents, barrier = [bytes([letter]) * 300_000 for letter in b"abcdef"], threading.Barrier(6)

    def write(content):
        barrier.wait(PATIENCE)
        for _ in range(5):
            with atomic.output_file(path, mark=content[:1].decode()) as file:
                for first in range(0, len(content), 10_000):
                    file.write(content[first : first + 10_000])

    threads = [threading.Thread(target=write, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert path.read_bytes() in contents
    assert list(path.parent.iterdir()) == [path]


def calls_of(monkeypatch, work):
    """What reaches the disk, and what is renamed, in order."""
    calls, fsync, replace = [], os.fsync, os.replace

    def noted_fsync(descriptor):
        calls.append(f"fsync {Path(os.readlink(f'/proc/self/fd/{descriptor}')).name}")
        fsync(descriptor)

    def noted_replace(source, target):
        calls.append(f"rename {Path(source).name} {Path(target).name}")
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", noted_fsync)
        patch.setattr(os, "replace", noted_replace)
        work()
    return calls


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="descriptors cannot be looked up here")
def test_what_reaches_the_disk_and_when(tmp_path, monkeypatch):
    folder, path = tmp_path / "folder", tmp_path / "folder" / "file"
    folder.mkdir()
    draft, rename = "fsync .file.draft", "rename .file.draft file"
    assert calls_of(monkeypatch, lambda: atomic.replace_content(path, b"")) == [draft, rename]
    assert calls_of(monkeypatch, lambda: atomic.replace_content(path, b"", sync=False)) == [rename]
    assert calls_of(monkeypatch, lambda: atomic.replace_content(path, b"", sync_name=True)) == [
        draft, rename, "fsync folder"
    ]  # fmt: skip
    own = folder / "own"
    assert calls_of(monkeypatch, lambda: atomic.replace_content(path, b"", draft=own)) == [
        "fsync own", "rename own file"
    ]  # fmt: skip
    assert calls_of(monkeypatch, lambda: private.write_new(folder / "new", b"")) == ["fsync new"]
    assert calls_of(monkeypatch, lambda: atomic.sync_file(path)) == ["fsync file"]
    assert calls_of(monkeypatch, lambda: atomic.rename(path, folder / "other")) == ["rename file other"]
    assert calls_of(monkeypatch, lambda: atomic.rename(folder / "other", path, sync_name=True)) == [
        "rename other file", "fsync folder"
    ]  # fmt: skip


# --- locks ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def lock_of(tmp_path):
    """Locks on one file, closed in the end."""
    with contextlib.ExitStack() as stack:
        yield lambda **options: stack.enter_context(FileLock.create(tmp_path / "lock", **options))


def test_one_holds_a_lock_alone_or_several_share_it(lock_of):
    first, second, third = lock_of(), lock_of(), lock_of()
    assert first.acquire(shared=True, timeout=0)
    assert second.acquire(shared=True, timeout=0)
    assert not third.acquire(timeout=0)
    assert not second.acquire(timeout=0)
    first.close()
    second.close()
    assert third.acquire(timeout=0)
    with FileLock.open(third.path) as fourth:
        assert not fourth.acquire(shared=True, timeout=0)


def test_waiting_ends_when_the_other_lets_go(lock_of):
    first, second, third = lock_of(), lock_of(), lock_of()
    assert first.acquire()
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(second.acquire(shared=True))),
        threading.Thread(target=lambda: results.append(third.acquire(shared=True, timeout=PATIENCE))),
    ]
    for thread in threads:
        thread.start()
    time.sleep(3 * locks.POLL_SECONDS)
    assert results == []
    first.close()
    for thread in threads:
        thread.join(PATIENCE)
    assert results == [True, True]


def test_waiting_ends_with_its_time(lock_of):
    first, second = lock_of(), lock_of()
    assert first.acquire()
    begun = time.monotonic()
    assert not second.acquire(timeout=0.1)
    assert time.monotonic() - begun >= 0.1
    begun = time.monotonic()
    assert not second.acquire(timeout=0)
    first.close()
    assert second.acquire(timeout=0)


def test_waiting_ends_when_there_is_nothing_left_to_wait_for(lock_of):
    first, second = lock_of(), lock_of()
    assert first.acquire()
    answers = [False, False, True]
    assert not second.acquire(timeout=float("inf"), give_up=lambda: answers.pop(0))
    assert answers == []
    first.close()
    assert second.acquire(timeout=PATIENCE, give_up=pytest.fail)


def test_a_lock_is_let_go_of_once(lock_of):
    first, second = lock_of(), lock_of()
    assert first.acquire()
    first.close()
    assert first.descriptor == -1
    assert second.acquire(timeout=0)
    first.close()
    assert not FileLock.open(second.path).acquire(timeout=0)


def test_a_forked_child_does_not_keep_its_parents_lock(lock_of):
    first, second = lock_of(), lock_of()
    assert first.acquire()
    child = Child()
    try:
        assert not second.acquire(timeout=0), "the child must not end it either"
        first.close()
        assert second.acquire(timeout=0)
    finally:
        child.kill()


def test_a_forked_child_closes_nothing_of_its_own_instead(lock_of):
    """Descriptors are used again: what the child opens may have the number that its parent's lock had."""
    lock = lock_of()
    assert lock.acquire()

    def use():
        descriptors = [os.open("/dev/null", os.O_RDONLY) for _ in range(8)]
        assert lock.descriptor == -1
        lock.close()
        for descriptor in descriptors:
            os.close(descriptor)

    assert forked(use) == 0
    assert locks.is_locked(lock.path)


def test_an_inherited_lock_ends_with_the_last_that_has_it(lock_of):
    first, second = lock_of(is_inherited=True), lock_of()
    assert first.acquire(shared=True)
    child = Child()
    try:
        first.close()
        assert not second.acquire(timeout=0)
    finally:
        child.kill()
    assert second.acquire(timeout=PATIENCE)


def test_the_lock_of_a_killed_process_ends(lock_of, tmp_path):
    lock = lock_of()
    child = Child(lambda: FileLock.create(tmp_path / "lock").acquire())
    try:
        assert not lock.acquire(timeout=0)
        assert locks.is_locked(lock.path)
    finally:
        child.kill()
    assert lock.acquire(timeout=PATIENCE)


def test_a_lock_on_a_file_that_was_removed_is_not_current(lock_of):
    lock = lock_of()
    assert lock.is_current
    lock.path.unlink()
    assert not lock.is_current
    with FileLock.create(lock.path) as other:
        assert other.is_current
        assert not lock.is_current


def test_files_that_are_read_can_be_locked(path):
    path.write_bytes(b"content")
    assert not locks.is_locked(path)
    with FileLock.open_regular(path, is_inherited=True) as lock:
        assert lock.acquire(shared=True, timeout=0)
        assert locks.is_locked(path)
        with open(lock.descriptor, "rb", closefd=False) as file:
            assert file.read() == b"content"
    assert not locks.is_locked(path)
    path.unlink()
    assert not locks.is_locked(path)


def test_a_link_is_no_lock_file(tmp_path):
    (tmp_path / "lock").symlink_to(tmp_path / "other")
    for opened in (FileLock.create, FileLock.open):
        with pytest.raises(OSError, match="symbolic link"):
            opened(tmp_path / "lock")
    assert not (tmp_path / "other").exists()


# --- regular files ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("read", [lambda path: regular.read_regular(path, 3), digests.sha256_of])
def test_only_regular_files_are_read_and_nothing_is_waited_for(tmp_path, path, read):
    os.mkfifo(tmp_path / "fifo")
    for name in (tmp_path / "fifo", tmp_path, Path("/dev/zero")):
        with pytest.raises(OSError, match=regular.NOT_REGULAR):
            read(name)
    with pytest.raises(FileNotFoundError):
        read(path)


def test_links_are_followed_where_that_is_said(tmp_path, path):
    path.write_bytes(b"content")
    (tmp_path / "link").symlink_to(path)
    assert regular.read_regular(tmp_path / "link", 100) == b"content"
    assert regular.read_regular(path, 3, follow=False) == b"con"
    with pytest.raises(OSError, match="it is a symbolic link"):
        regular.read_regular(tmp_path / "link", 100, follow=False)


# --- digests ----------------------------------------------------------------------------------------------------------


def test_files_are_as_described_or_the_first_fault_is_told(tmp_path):
    files = {name: digests.write_described(tmp_path / name, name.encode() * 3) for name in ("a", "b")}
    assert files == {name: digests.describe_file(tmp_path / name) for name in files}
    for verify in (False, True):
        assert digests.first_fault(tmp_path, files, verify=verify) is None
    (tmp_path / "b").write_bytes(b"bxb")
    assert digests.first_fault(tmp_path, files, verify=False) is None
    assert "b was changed" in digests.first_fault(tmp_path, files, verify=True)
    (tmp_path / "b").write_bytes(b"bb")
    assert "b has 2 bytes instead of 3" in digests.first_fault(tmp_path, files, verify=False)
    (tmp_path / "a").unlink()
    assert "a is missing" in digests.first_fault(tmp_path, files, verify=False)
    os.mkfifo(tmp_path / "a")
    assert regular.NOT_REGULAR in digests.first_fault(tmp_path, files, verify=True)
