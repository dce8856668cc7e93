"""Pages keep their word: code runs and prints what the page says, links lead somewhere, made pages are up to date."""

import contextlib
import importlib.util
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from ncii_match.values import PDQ, PDQ_MIN_QUALITY, PDQ_THRESHOLD

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
RUN = [ROOT / "README.md", ROOT / "docs" / "quickstart.md", ROOT / "docs" / "upload-pipelines.md"]
BLOCK = re.compile(r"^```(\w+(?: cluster)?)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CLUSTER = all(importlib.util.find_spec(name) for name in ("ray", "pyspark"))
"""Whether blocks run that are marked as needing Ray and Spark; CI has them in an environment of their own."""

ELSEWHERE = ("git clone", "pip install", "python -m venv")


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A place like the root of a checkout, where examples may write."""
    (tmp_path / "data").symlink_to(ROOT / "data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.name)
def test_python_blocks_run_and_print_what_the_page_says(page, checkout):
    names = {}
    blocks = BLOCK.findall(page.read_text(encoding="utf-8"))
    ran = 0
    for (language, code), (following, wanted) in zip(blocks, [*blocks[1:], ("", "")], strict=True):
        if language != "python":
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, f"{page.name}", "exec"), names)
        ran += 1
        if "print(" in code:
            assert following == "text", f"{page.name}: a block prints something that the page does not show"
            assert printed.getvalue() == wanted
    assert ran


def test_bash_blocks_of_the_readme_run(checkout):
    ran = 0
    program = Path(sys.executable).parent
    for language, code in BLOCK.findall((ROOT / "README.md").read_text(encoding="utf-8")):
        if language == "bash" and not code.startswith(ELSEWHERE):
            environment = {**os.environ, "PATH": f"{program}{os.pathsep}{os.environ['PATH']}"}
            result = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", code], env=environment, capture_output=True, text=True, check=False,
                timeout=300,
            )  # fmt: skip
            assert result.returncode == 0, result.stderr
            ran += 1
    assert ran


@pytest.mark.parametrize(("name", "blocks_run"), [("rescans.md", 9 if CLUSTER else 6), ("thresholds.md", 3)])
def test_recipes_run_in_order_and_print_what_the_page_says(checkout, name, blocks_run):
    """``shown``: what a block printed once; its figures depend on the versions of what alters pictures."""
    page = ROOT / "docs" / name
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    blocks = BLOCK.findall(page.read_text(encoding="utf-8"))
    ran = 0
    for (language, code), (following, wanted) in zip(blocks, [*blocks[1:], ("", "")], strict=True):
        if language in ("text", "shown") or (language.endswith("cluster") and not CLUSTER):
            continue
        program = ["bash", "-euo", "pipefail", "-c"] if language.startswith("bash") else [sys.executable, "-c"]
        # Not the Ray of another test, which may be stopped at any time.
        environment = {"RAY_ADDRESS": "local", **os.environ, "PATH": path}
        result = subprocess.run(
            [*program, code], env=environment, capture_output=True, text=True, check=False, timeout=300
        )
        assert result.returncode == 0, f"{code}\n{result.stdout}\n{result.stderr}"
        if following == "text":
            assert result.stdout == wanted
        ran += 1
    assert ran == blocks_run


def test_the_page_on_rescans_names_every_column():
    import pyarrow as pa

    from ncii_match.rescans.rescan import results_schema

    text = (ROOT / "docs" / "rescans.md").read_text(encoding="utf-8")
    named = {name for line in text.splitlines() if line.startswith("| `") for name in re.findall(r"`([^`]+)`", line)}
    assert named >= set(results_schema(pa.string()).names)


def test_pages_state_the_defaults_of_the_code():
    for page in ("README.md", "docs/index.md", "docs/quickstart.md"):
        assert f"{PDQ_THRESHOLD} of {PDQ.bits} bits" in (ROOT / page).read_text(encoding="utf-8"), page
    assert f"quality below {PDQ_MIN_QUALITY} " in (ROOT / "docs" / "index.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name} points at {target}"


def test_made_pages_are_up_to_date():
    made = subprocess.run(
        [sys.executable, "docs/generate.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert made.returncode == 0, made.stdout


def test_measured_pages_are_up_to_date():
    made = subprocess.run(
        [sys.executable, "benchmarks/report.py", "--check"],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert made.returncode == 0, made.stdout + made.stderr


def test_photographs_are_those_listed():
    """Each with its licence, unchanged; and none that is not listed."""
    import hashlib

    folder = ROOT / "data" / "fixtures" / "photos"
    listed = dict(
        re.findall(r"^\| (\S+) \|.*\| `([0-9a-f]{64})` \|$", (folder / "README.md").read_text(), re.MULTILINE)
    )
    there = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.suffix != ".md"
    }
    assert there == listed
    assert len(there) >= 10
