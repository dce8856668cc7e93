"""Plant small faults in the package, one at a time, and see whether the nearest tests find them.

    python scripts/plant_faults.py --sample 20 --seed 1 policy decisions
    python scripts/plant_faults.py --list policy
    python scripts/plant_faults.py                 # every fault of every target: days

A target is some modules and their nearest tests (``TARGETS``). Each fault is one change of the syntax tree: a boundary,
a condition, ``and`` for ``or``, ``min`` for ``max``, a constant, two arguments, a ``raise``, ``return``, ``continue``
or ``break`` that is gone. The tests run on a copy of the tree, never on the tree itself. Results are written after each
fault; a run that is repeated leaves out what has a result. Survivors are listed in ``scripts/survivors.json``, where a
person adds what a survivor means: ``"note"`` stays when the list is written again.
"""

import argparse
import ast
import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

ROOT = Path(__file__).resolve().parent.parent

TARGETS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "decisions": (
        ("ncii_match/decisions/judgement.py", "ncii_match/decisions/decision.py", "ncii_match/decisions/shortlist.py",
         "ncii_match/decisions/stored.py", "ncii_match/decisions/cross_check.py"),
        ("test_decisions.py", "test_many_matches.py", "test_policy.py", "test_boundaries.py"),
    ),
    "policy": (("ncii_match/decisions/policy.py",), ("test_policy.py", "test_decisions.py", "test_boundaries.py")),
    "matcher": (
        ("ncii_match/matcher.py", "ncii_match/witness.py"),
        ("test_matcher.py", "test_matcher_faults.py", "test_witness.py", "test_many_matches.py", "test_boundaries.py"),
    ),
    "ingest": (
        ("ncii_match/ingest.py", "ncii_match/hashing/borders.py"),
        ("test_ingest.py", "test_borders.py", "test_own_faults.py", "test_boundaries.py"),
    ),
    "decode": (
        ("ncii_match/decode/image.py", "ncii_match/decode/container.py", "ncii_match/decode/limits.py",
         "ncii_match/decode/metadata.py", "ncii_match/decode/modes.py", "ncii_match/decode/planes.py",
         "ncii_match/decode/header.py"),
        ("test_decode.py", "test_planes.py", "test_header.py", "test_decode_notes.py", "test_modes.py",
         "test_boundaries.py", "test_decode_hostile.py", "test_sandbox.py"),
    ),
    "bank": (
        ("ncii_match/bank/truth/holds.py", "ncii_match/bank/truth/intake.py", "ncii_match/bank/truth/hold_states.py",
         "ncii_match/bank/transfer/importing.py", "ncii_match/bank/transfer/bounds.py",
         "ncii_match/bank/transfer/hold_endings.py", "ncii_match/bank/snapshots/snapshot.py",
         "ncii_match/bank/snapshots/segment.py"),
        ("test_bank.py", "test_bank_life.py", "test_exchange.py", "test_import_bounds.py", "test_many_matches.py",
         "test_boundaries.py"),
    ),
    "publication": (
        ("ncii_match/bank/snapshots/backlog.py", "ncii_match/bank/snapshots/publication.py"),
        ("test_bank.py", "test_bank_life.py", "test_bank_history.py", "test_unpublished.py"),
    ),
    "history": (
        ("ncii_match/bank/snapshots/continuity.py", "ncii_match/bank/snapshots/verification.py",
         "ncii_match/bank/snapshots/restoration.py", "ncii_match/bank/truth/journal.py"),
        ("test_bank_history.py", "test_bank_restore.py", "test_bank_life.py"),
    ),
    "reading": (
        ("ncii_match/bank/snapshots/copies.py", "ncii_match/bank/snapshots/storage.py",
         "ncii_match/bank/snapshots/storage_choice.py", "ncii_match/bank/snapshots/following.py",
         "ncii_match/bank/snapshots/manifest.py"),
        ("test_bank_remote.py", "test_kept_banks.py", "test_matcher_faults.py", "test_swapped.py"),
    ),
    "index": (
        ("ncii_match/index/live_index.py", "ncii_match/index/radius_index.py"),
        ("test_live_index.py", "test_index.py"),
    ),
    "jobs": (
        ("ncii_match/jobs/job.py", "ncii_match/jobs/checkpoints.py", "ncii_match/jobs/plan.py",
         "ncii_match/jobs/scheduler.py", "ncii_match/jobs/worker.py", "ncii_match/jobs/process_cache.py"),
        ("test_jobs.py", "test_job_workers.py", "test_rescan_job.py", "test_experiment.py"),
    ),
    "rescans": (
        ("ncii_match/rescans/changes.py", "ncii_match/rescans/rescan.py", "ncii_match/rescans/plan.py",
         "ncii_match/jobs/row_contents.py"),
        ("test_rescan.py", "test_rescan_changes.py", "test_rescan_job.py", "test_boundaries.py", "test_job_workers.py"),
    ),
    "sandbox": (
        ("ncii_match/sandbox/pool.py", "ncii_match/sandbox/workers.py", "ncii_match/sandbox/worker.py",
         "ncii_match/sandbox/stream.py", "ncii_match/sandbox/connection.py"),
        ("test_ordered_stream.py", "test_sandbox.py", "test_matcher_isolation.py"),
    ),
}  # fmt: skip
"""By name: modules, and the nearest tests, quickest first."""

NOT_COPIED = shutil.ignore_patterns(
    ".git", ".hypothesis", ".mypy_cache", ".ruff_cache", ".pytest_cache", "build", "dist"
)

BOUNDARIES: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip

OPPOSITES = {"min": "max", "max": "min", "minimum": "maximum", "maximum": "minimum", "any": "all", "all": "any"}

FIRST_SECONDS, TIMES_AS_LONG = 60.0, 3.0
"""Least time that tests with a fault may take, and how many times as long as without one."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One change of one module.

    module : path in the tree. line, column : where, from 1. kind : of the change. before, after : the text that is
    replaced. first, last : its bytes in the file.
    """

    module: str
    line: int
    column: int
    kind: str
    before: str
    after: str
    first: int
    last: int

    @property
    def key(self) -> str:
        """A name that stays the same while the module does."""
        return f"{self.module}:{self.line}:{self.column}:{self.kind}:{self.after}"

    def planted(self, source: bytes) -> bytes:
        """The module with the fault in it."""
        return source[: self.first] + self.after.encode() + source[self.last :]


def faults_in(module: str, source: str) -> list[Fault]:
    """Every fault that can be planted in a module, in the order of its text; each still compiles."""
    starts = [0]
    for line in source.encode().split(b"\n"):
        starts.append(starts[-1] + len(line) + 1)
    encoded = source.encode()
    faults = []
    for node, kind, after in _changes(ast.parse(source)):
        first = starts[node.lineno - 1] + node.col_offset
        last = starts[node.end_lineno - 1] + node.end_col_offset
        before = encoded[first:last].decode()
        fault = Fault(module, node.lineno, node.col_offset + 1, kind, before, after, first, last)
        with contextlib.suppress(SyntaxError, ValueError):
            if ast.dump(ast.parse(fault.planted(encoded))) != ast.dump(ast.parse(source)):
                faults.append(fault)
    return sorted(
        {fault.key: fault for fault in faults}.values(), key=lambda fault: (fault.first, fault.last, fault.key)
    )


def _changes(tree: ast.Module) -> Iterator[tuple[ast.expr | ast.stmt, str, str]]:
    """A node, the kind of a change, and what takes its place."""
    for node in _living(tree):
        match node:
            case ast.Compare(ops=ops) if any(type(op) in BOUNDARIES for op in ops):
                for position, op in enumerate(ops):
                    if type(op) in BOUNDARIES:
                        changed = [*ops[:position], BOUNDARIES[type(op)](), *ops[position + 1 :]]
                        yield node, "comparison", _text(ast.Compare(node.left, changed, node.comparators))
            case ast.BoolOp(op=op, values=values):
                other = ast.Or() if isinstance(op, ast.And) else ast.And()
                yield node, "and/or", _text(ast.BoolOp(other, values))
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                yield node, "not", _text(operand)
            case ast.Constant(value=bool() as value):
                yield node, "constant", str(not value)
            case ast.Constant(value=int() as value):
                yield node, "constant", f"({value + 1})"
                yield node, "constant", f"({value - 1})"
            case ast.Call(func=func, args=args, keywords=keywords):
                name = func.id if isinstance(func, ast.Name) else func.attr if isinstance(func, ast.Attribute) else ""
                if name in OPPOSITES:
                    renamed = (
                        ast.Name(OPPOSITES[name])
                        if isinstance(func, ast.Name)
                        else ast.Attribute(func.value, OPPOSITES[name])
                    )
                    yield node, "min/max", _text(ast.Call(renamed, args, keywords))
                if len(args) > 1 and not any(isinstance(argument, ast.Starred) for argument in args[:2]):
                    yield node, "arguments", _text(ast.Call(func, [args[1], args[0], *args[2:]], keywords))
            case ast.If(test=test) | ast.IfExp(test=test) | ast.While(test=test):
                yield test, "condition", f"(not ({_text(test)}))"
            case ast.Raise() | ast.Continue() | ast.Break():
                yield node, type(node).__name__.lower(), "pass"
            case ast.Return(value=value) if value is not None:
                yield node, "return", "pass"
            case _:
                pass


def _living(tree: ast.Module) -> Iterator[ast.AST]:
    """Nodes that run: no annotations, no docstrings, no imports, no messages of errors."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import | ast.ImportFrom | ast.JoinedStr):
            continue
        yield node
        if isinstance(node, ast.Raise):
            continue
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns", "decorator_list", "type_params"):
                continue
            waiting += [
                child for child in (value if isinstance(value, list) else [value]) if isinstance(child, ast.AST)
            ]


def _text(node: ast.expr) -> str:
    """An expression as text that may stand wherever it is put."""
    return f"({ast.unparse(ast.fix_missing_locations(node))})"


class Copy:
    """A copy of the tree, with one module changed at a time. A context manager: the copy goes with it."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._holder = tempfile.TemporaryDirectory(prefix="ncii-match-faults-")
        self.path = Path(self._holder.name) / "tree"

    def __enter__(self) -> Self:
        shutil.copytree(self._root, self.path, ignore=NOT_COPIED, symlinks=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._holder.cleanup()

    @contextlib.contextmanager
    def changed(self, fault: Fault) -> Iterator[None]:
        """The fault is there while the block runs."""
        file = self.path / fault.module
        source = file.read_bytes()
        try:
            file.write_bytes(fault.planted(source))
            yield
        finally:
            file.write_bytes(source)

    def run(self, tests: list[str], seconds: float | None) -> str:
        """``passed``, ``failed`` by a test, ``broken`` (nothing could run), or ``late``."""
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-n0", "-p", "no:cacheprovider", *tests]
        # No compiled modules: two faults of one length within a second would be taken for the same file.
        environment = {**os.environ, "PYTHONPATH": str(self.path), "PYTHONDONTWRITEBYTECODE": "1"}
        process = subprocess.Popen(
            command, cwd=self.path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            return "late"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # what the tests have left running, too
            process.wait()
        return {0: "passed", 1: "failed"}.get(code, "broken")


def digest(path: Path) -> str:
    """Which text of a module a result belongs to."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def read(path: Path) -> dict[str, dict[str, object]]:
    """What a file of results holds, nothing when there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def write(path: Path, content: dict[str, dict[str, object]]) -> None:
    """Replace a file of results; a run that is ended meanwhile leaves the old one whole."""
    draft = path.with_name(path.name + ".draft")
    draft.write_text(json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
    draft.replace(path)


def write_survivors(results: Path, survivors: Path) -> dict[str, dict[str, object]]:
    """List the faults that no test has found, with the notes that were made before."""
    notes = {key: survivor.get("note") for key, survivor in read(survivors).items()}
    alive = {
        key: {name: result[name] for name in ("module", "line", "kind", "before", "after")} | {"note": notes.get(key)}
        for key, result in read(results).items()
        if result["outcome"] == "passed"
    }
    write(survivors, alive)
    return alive


def campaign(
    root: Path, options: list[tuple[Fault, list[str]]], results: Path, seconds: float | None
) -> dict[str, dict[str, object]]:
    """Plant each fault that has no result yet, and write what became of it."""
    done = read(results)
    current = {fault.module: digest(root / fault.module) for fault, _ in options}
    left = [
        (fault, tests) for fault, tests in options if done.get(fault.key, {}).get("digest") != current[fault.module]
    ]
    print(f"{len(options)} faults, {len(options) - len(left)} of them with a result")
    if not left:
        return done
    allowed: dict[tuple[str, ...], float] = {}
    with Copy(root) as copy:
        for number, (fault, tests) in enumerate(left, 1):
            if tuple(tests) not in allowed:
                began = time.monotonic()
                if (without := copy.run(tests, None)) != "passed":
                    raise SystemExit(f"without a fault the tests {' '.join(tests)} {without}; mend them first")
                allowed[tuple(tests)] = max(FIRST_SECONDS, TIMES_AS_LONG * (time.monotonic() - began))
            with copy.changed(fault):
                outcome = copy.run(tests, seconds or allowed[tuple(tests)])
            done[fault.key] = {**asdict(fault), "outcome": outcome, "digest": current[fault.module]}
            write(results, done)
            word = "SURVIVED" if outcome == "passed" else outcome
            print(f"{number}/{len(left)} {word:8} {fault.key}", flush=True)
    return done


def choose(root: Path, names: list[str], sample: int | None, seed: int) -> list[tuple[Fault, list[str]]]:
    """Faults of some targets with their tests; of many a sample, the same for the same seed."""
    every = []
    for name in names:
        modules, tests = TARGETS[name]
        paths = [f"tests/{test}" for test in tests]
        every += [
            (fault, paths) for module in modules for fault in faults_in(module, (root / module).read_text("utf-8"))
        ]
    if sample is None or sample >= len(every):
        return every
    picked = random.Random(seed).sample(range(len(every)), sample)  # noqa: S311 - chance, not secrecy
    return [every[position] for position in sorted(picked)]


def main() -> int:
    """Exit code 1 when a fault survived that nobody has made a note about."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; all without")
    parser.add_argument("--sample", type=int, help="plant only so many, options at random")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--timeout", type=float, help="seconds for the tests of one fault")
    parser.add_argument("--results", type=Path, default=ROOT / "build" / "planted_faults.json")
    parser.add_argument("--survivors", type=Path, default=ROOT / "scripts" / "survivors.json")
    parser.add_argument("--list", action="store_true", help="show the faults and plant none")
    given = parser.parse_args()
    if unknown := [name for name in given.targets if name not in TARGETS]:
        parser.error(f"{unknown[0]!r} is no target; choose from {', '.join(TARGETS)}")
    options = choose(ROOT, given.targets or [*TARGETS], given.sample, given.seed)
    if given.list:
        for fault, _ in options:
            print(f"{fault.key}  [{fault.before.partition(chr(10))[0]}]")
        print(f"{len(options)} faults")
        return 0
    given.results.parent.mkdir(parents=True, exist_ok=True)
    done = campaign(ROOT, options, given.results, given.timeout)
    alive = write_survivors(given.results, given.survivors)
    ours = [done[fault.key]["outcome"] for fault, _ in options]
    print(f"{len(ours)} faults, {ours.count('passed')} survived: {given.survivors}")
    return int(any(survivor["note"] is None for key, survivor in alive.items()))


if __name__ == "__main__":
    sys.exit(main())
