"""Raw measurements on disk: one JSON file a run, with the machine, the versions and the commit that made it."""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any

import ncii_match
from ncii_match.ingest import available_cores

Row = dict[str, Any]

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"

PACKAGES = ("numpy", "numba", "llvmlite", "pillow", "pdqhash", "threatexchange", "ImageHash", "faiss-cpu")
"""Whatever takes part in a measurement."""

SCRIPTS = {
    "hashing": "bench_hashing.py",
    "accuracy": "accuracy.py",
    "search": "bench_search.py",
    "costs": "bench_search.py --costs",
    "bank": "bench_bank.py",
    "opening": "bench_opening.py",
    "thresholds": "bench_thresholds.py",
    "checks": "bench_checks.py",
    "swaps": "bench_swaps.py",
    "killers": "bench_killers.py",
    "rescan": "bench_rescan.py",
    "pairs": "bench_pairs.py",
    "noise": "bench_thresholds.py",
}
"""What makes each kind of run."""


def peer(module: str) -> ModuleType:
    """A library we compare with, imported when it is needed. Raises ImportError saying how to get it."""
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(f"{module} is needed to compare with ({error}); run: pip install -e '.[bench]'") from error


def _cpu() -> str:
    try:
        model = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        model = None
    return model[1].strip() if model else platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version(), "ncii_match": ncii_match.__version__}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def _commit() -> str:
    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()

    try:
        # What the figures depend on: a changed page or an older result does not make them another commit's.
        changed = git("status", "--porcelain", "--", "ncii_match", "benchmarks/*.py", "data", "pyproject.toml")
        return git("rev-parse", "--short=10", "HEAD") + ("-changed" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def circumstances() -> dict[str, Any]:
    """When, where and on what a run is made; taken before it starts, so that the load is not its own."""
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "machine": {
            "cpu": _cpu(),
            "compiled_for": peer("llvmlite.binding").get_host_cpu_name(),
            "cores": available_cores(),
            "memory_bytes": peer("psutil").virtual_memory().total,
            "system": f"{platform.system()} {platform.machine()}",
            "load_before": os.getloadavg()[0],
        },
        "versions": _versions(),
    }


def write(kind: str, around: dict[str, Any], quick: bool, measured: dict[str, Any]) -> Path:
    """Keep one run. ``kind``: of ``SCRIPTS``. Returns the new file."""
    machine = re.sub(r"[^a-z0-9]+", "-", f"{around['machine']['cpu']} {around['machine']['cores']}c".lower())
    path = RESULTS / f"{around['when'][:10]}-{machine}-{around['commit']}-{kind}{'-quick' * quick}.json"
    RESULTS.mkdir(exist_ok=True)
    run = {"kind": kind, "quick": quick, **around, **measured}
    path.write_text("{\n" + ",\n".join(f"{json.dumps(key)}: {_lines(value)}" for key, value in run.items()) + "\n}\n")
    return path


def parser(about: str | None, quick: str) -> argparse.ArgumentParser:
    """The command line of a benchmark: its docstring as help, and ``--quick``."""
    command = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("--quick", action="store_true", help=f"{quick}: to see that it works")
    return command


def run(kind: str, quick: bool, rows: Iterable[Row], describe: Callable[[Row], str]) -> list[Row]:
    """Measure row by row, print a line for each, keep them all. Ends the program where a peer is not installed."""
    start, measured = circumstances(), []
    try:
        for row in rows:
            measured.append(row)
            print(describe(row), flush=True)
    except ImportError as error:
        sys.exit(str(error))
    print(f"wrote {write(kind, start, quick, {'rows': measured})}")
    return measured


def _lines(value: Any) -> str:
    """JSON with one item of a list a line: neither a line for each sample nor all on one."""
    if isinstance(value, list):
        return "[\n" + ",\n".join(map(json.dumps, value)) + "\n]"
    return json.dumps(value)


def newest(kind: str) -> dict[str, Any]:
    """The latest run of a kind; a quick one only while there is no other. Raises FileNotFoundError without any."""
    runs = [json.loads(path.read_text()) for path in RESULTS.glob("*.json")]
    wanted = [run for run in runs if run["kind"] == kind]
    if not wanted:
        raise FileNotFoundError(f"no {kind} run in {RESULTS}; run: python benchmarks/{SCRIPTS[kind]}")
    return max(wanted, key=lambda run: (not run["quick"], run["when"]))
