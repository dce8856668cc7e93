"""Fail when a page of figures is older than the code that it measures. Run before a release; the suite does not.

A run in ``benchmarks/results`` names the commit that it measured. A page is stale when the code of a module that it
measures has changed since that commit. Comments, docstrings and layout do not count.

python scripts/release_check.py [--json]      exit code 0: every page is current, 1: some are stale
"""

import argparse
import ast
import json
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

HASHING = ("ncii_match/decode", "ncii_match/hashing", "ncii_match/kernels", "ncii_match/ingest.py")
SEARCH = (
    "ncii_match/index",
    "ncii_match/kernels/hamming.py",
    "ncii_match/kernels/mih.py",
    "ncii_match/kernels/rows.py",
)
READING = (
    "ncii_match/bank/snapshots/snapshot.py",
    "ncii_match/bank/snapshots/segment.py",
    "ncii_match/bank/snapshots/following.py",
)
CHECKS = (*HASHING, *SEARCH, *READING, "ncii_match/sandbox", "ncii_match/matcher.py", "ncii_match/isolation.py")
EVALUATION = (*HASHING, "ncii_match/evaluate")

MEASURED: dict[str, tuple[str, ...]] = {
    "hashing": (*HASHING, "benchmarks/bench_hashing.py"),
    "accuracy": (*HASHING, "benchmarks/accuracy.py"),
    "search": (*SEARCH, "benchmarks/bench_search.py"),
    "costs": (*SEARCH, "benchmarks/search_costs.py"),
    "bank": ("ncii_match/bank", *SEARCH, "benchmarks/bench_bank.py"),
    "opening": (
        *READING,
        "ncii_match/bank/snapshots/copies.py",
        "ncii_match/bank/snapshots/manifest.py",
        "benchmarks/bench_opening.py",
    ),
    "checks": (*CHECKS, "benchmarks/bench_checks.py"),
    "swaps": (*CHECKS, "ncii_match/bank", "benchmarks/bench_swaps.py"),
    "killers": (*CHECKS, "benchmarks/bench_killers.py"),
    "rescan": (*CHECKS, "ncii_match/rescans", "benchmarks/bench_rescan.py"),
    "thresholds": (*EVALUATION, "benchmarks/bench_thresholds.py"),
    "noise": (*EVALUATION, "benchmarks/bench_thresholds.py"),
    "pairs": ("ncii_match/evaluate/pairs.py", "ncii_match/kernels/histogram.py", "benchmarks/bench_pairs.py"),
}
"""By kind of run: files and folders, seen from the root, whose code decides its figures."""


@dataclass(frozen=True, slots=True)
class Staleness:
    """A run that no longer describes the code.

    kind : str, of ``MEASURED``.
    commit : str, that the run measured.
    changed : tuple of str, files whose code differs now. A file that is new or gone counts.
    reason : str, empty when ``changed`` says it all.
    """

    kind: str
    commit: str
    changed: tuple[str, ...]
    reason: str = ""


def code_of(source: bytes) -> str:
    """What a Python file does, without comments, docstrings and layout."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [item for item in body if not _is_text(item)]  # type: ignore[attr-defined]
    return ast.dump(tree)


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def git(root: Path, *arguments: str) -> bytes:
    """What git prints. Raises CalledProcessError."""
    return subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True).stdout


def changed_files(root: Path, commit: str, paths: Iterable[str]) -> list[str]:
    """Python files below the paths whose code differs between a commit and the working tree, sorted."""
    names = git(root, "diff", "--name-only", "--no-renames", commit, "--", *paths).decode().splitlines()
    return sorted({name for name in names if name.endswith(".py") and _code_differs(root, commit, name)})


def _code_differs(root: Path, commit: str, name: str) -> bool:
    try:
        before = git(root, "show", f"{commit}:{name}")
    except subprocess.CalledProcessError:
        return True
    now = root / name
    return not now.exists() or code_of(before) != code_of(now.read_bytes())


def newest_commits(root: Path) -> dict[str, str]:
    """The commit of the newest run of each kind."""
    runs = (json.loads(path.read_text()) for path in (root / "benchmarks" / "results").glob("*.json"))
    newest: dict[str, tuple[tuple[bool, str], str]] = {}
    for run in runs:
        rank = (not run["quick"], run["when"])
        newest[run["kind"]] = max(newest.get(run["kind"], ((False, ""), "")), (rank, run["commit"]))
    return {kind: commit for kind, (_, commit) in newest.items()}


def stale_runs(
    root: Path, measured: dict[str, tuple[str, ...]], *, commits: Callable[[Path], dict[str, str]] = newest_commits
) -> list[Staleness]:
    """Every kind of run whose figures are not those of the working tree."""
    stale = []
    of_kind = commits(root)
    for kind, paths in measured.items():
        commit = of_kind.get(kind, "")
        reason = _unusable(root, commit)
        changed = () if reason else tuple(changed_files(root, commit, paths))
        if reason or changed:
            stale.append(Staleness(kind, commit, changed, reason))
    return stale


def _unusable(root: Path, commit: str) -> str:
    if not commit:
        return "there is no run"
    if commit.endswith("-changed"):
        return "it measured files that were not committed"
    try:
        git(root, "cat-file", "-e", f"{commit}^{{commit}}")
    except subprocess.CalledProcessError:
        return "its commit is not in this repository"
    return ""


def main() -> None:
    """Print what is stale, and end with 1 when anything is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the stale runs as JSON")
    as_json = parser.parse_args().json
    stale = stale_runs(ROOT, MEASURED)
    if as_json:
        sys.stdout.write(json.dumps([asdict(run) for run in stale], indent=1) + "\n")
    for run in stale if not as_json else ():
        names = ", ".join(run.changed[:4]) + (f" and {len(run.changed) - 4} more" if len(run.changed) > 4 else "")
        sys.stdout.write(
            f"{run.kind}: measured at {run.commit or 'no commit'}; {run.reason or f'changed since: {names}'}\n"
        )
    if stale:
        sys.exit("Run those benchmarks again from a clean tree, then: python benchmarks/report.py")
    if not as_json:
        sys.stdout.write("Every page of figures describes the code as it is.\n")


if __name__ == "__main__":
    main()
