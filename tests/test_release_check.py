"""The release check: a page of figures is stale as soon as the code that it measures is another."""

import subprocess
import sys

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
import release_check

MEASURED = {"hashing": ("package/hashing.py", "package/kernels"), "bank": ("package/bank.py",)}


def git(root, *arguments):
    identity = ("-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    return subprocess.run(
        ["git", *identity, *arguments], cwd=root, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def checkout(tmp_path):
    """A repository with three measured modules, and its first commit."""
    (tmp_path / "package" / "kernels").mkdir(parents=True)
    for name in ("hashing.py", "bank.py", "kernels/pdq.py", "other.py"):
        (tmp_path / "package" / name).write_text('"""Text."""\n\n\ndef run(x):\n    """More."""\n    return x + 1\n')
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    return tmp_path, git(tmp_path, "rev-parse", "--short=10", "HEAD")


def stale(checkout, **commits):
    root, first = checkout
    of_kind = {"hashing": first, "bank": first} | commits
    return {run.kind: run for run in release_check.stale_runs(root, MEASURED, commits=lambda _: of_kind)}


def test_nothing_is_stale_when_nothing_has_changed(checkout):
    assert stale(checkout) == {}


@pytest.mark.parametrize(
    "text",
    [
        '"""Other text."""\n\n\ndef run(x):\n    """Other."""\n    return x + 1\n',
        "# a comment\ndef run(x):\n    return (\n        x + 1\n    )\n",
    ],
)
def test_words_and_layout_do_not_count(checkout, text):
    (checkout[0] / "package" / "hashing.py").write_text(text)
    assert stale(checkout) == {}


def test_changed_code_makes_its_own_kind_stale_committed_or_not(checkout):
    root = checkout[0]
    (root / "package" / "kernels" / "pdq.py").write_text("def run(x):\n    return x + 2\n")
    assert set(stale(checkout)) == {"hashing"}
    git(root, "commit", "-qam", "second")
    assert stale(checkout)["hashing"].changed == ("package/kernels/pdq.py",)


def test_code_that_is_not_measured_does_not_count(checkout):
    (checkout[0] / "package" / "other.py").write_text("def run(x):\n    return 7\n")
    assert stale(checkout) == {}


def test_a_file_that_is_new_or_gone_counts(checkout):
    root = checkout[0]
    (root / "package" / "kernels" / "new.py").write_text("X = 1\n")
    git(root, "add", ".")
    (root / "package" / "bank.py").unlink()
    runs = stale(checkout)
    assert runs["hashing"].changed == ("package/kernels/new.py",)
    assert runs["bank"].changed == ("package/bank.py",)


@pytest.mark.parametrize(
    ("commit", "reason"),
    [("", "no run"), ("0123456789", "not in this repository"), ("{first}-changed", "not committed")],
)
def test_a_run_of_no_commit_is_stale(checkout, commit, reason):
    runs = stale(checkout, bank=commit.format(first=checkout[1]))
    assert set(runs) == {"bank"}
    assert reason in runs["bank"].reason


def test_every_kind_of_run_is_listed_and_every_path_is_there():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    import record

    assert set(release_check.MEASURED) == set(record.SCRIPTS)
    for paths in release_check.MEASURED.values():
        assert [path for path in paths if not (ROOT / path).exists()] == []
