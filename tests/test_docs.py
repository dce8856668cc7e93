"""Pages keep their word: code runs and prints what the page says, links lead somewhere, made pages are up to date."""

import contextlib
import importlib.util
import inspect
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from ncii_match.decisions import MOST_HOLDS, MOST_MATCHES, Policy
from ncii_match.decode.limits import DecodeLimits
from ncii_match.outcomes import Outcome, Status
from ncii_match.sandbox.pool import DECODING_SECONDS
from ncii_match.values import PDQ, PDQ_MIN_QUALITY, PDQ_THRESHOLD

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SEQUENCES = {
    "uploads": ("README", "quickstart", "upload-pipelines"),
    "bank": ("bank", "exchange", "encryption"),
    "rescans": ("rescans",),
    "evaluation": ("rescans", "thresholds", "tuning"),
}
"""Pages whose blocks run one after the other in one folder, as a reader runs them."""

BLOCK = re.compile(r"^```(\w+(?: cluster)?)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CLUSTER = all(importlib.util.find_spec(name) for name in ("ray", "pyspark"))
"""Whether blocks run that are marked as needing Ray and Spark; CI has them in an environment of their own."""


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A folder like the root of a checkout, where examples may write."""
    (tmp_path / "data").symlink_to(ROOT / "data")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NCII_MATCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("RAY_ADDRESS", "local")  # not the Ray of another test, which may be stopped at any time
    return tmp_path


def read_page(name):
    return (ROOT / "README.md" if name == "README" else ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")


def run_program(*command):
    """What a program prints. It must end with 0."""
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert result.returncode == 0, f"{command[-1]}\n{result.stdout}\n{result.stderr}"
    return result.stdout


def run_python(code, names):
    """What Python code prints that goes on with the names of the blocks before it."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "a block", "exec"), names)
    return printed.getvalue()


def run_page(name, *, with_cluster):
    """Run the blocks that are marked ``bash`` or ``python``; ``text`` is what the block before it must print."""
    blocks, names, ran = BLOCK.findall(read_page(name)), {}, 0
    for (language, code), (following, wanted) in zip(blocks, [*blocks[1:], ("", "")], strict=True):
        if language == "bash" or (language == "bash cluster" and with_cluster):
            printed = run_program("bash", "-euo", "pipefail", "-c", code)
        elif language == "python cluster" and with_cluster:
            printed = run_program(sys.executable, "-c", code)
        elif language == "python":
            printed = run_python(code, names)
            assert following == "text" or not printed, f"{name}: the page does not show what a block prints"
        else:
            continue
        if following == "text":
            assert printed == wanted
        ran += 1
    assert ran, f"{name} has no block that runs"


@pytest.mark.parametrize(
    "sequence",
    [
        pytest.param(
            sequence,
            marks=pytest.mark.skipif(sequence == "rescans" and not CLUSTER, reason="the evaluation pages run it, too"),
        )
        for sequence in SEQUENCES
    ],
)
def test_pages_run_in_order_in_one_folder(checkout, sequence):
    for name in SEQUENCES[sequence]:
        run_page(name, with_cluster=CLUSTER and sequence == "rescans")


def test_the_commands_that_the_readme_begins_with():
    """CI runs both in an environment of their own."""
    assert "```sh\npip install . && ncii-match demo\n```" in read_page("README")
    assert "```sh\npip install -e '.[test]' && pytest\n```" in read_page("README")


def test_the_page_on_rescans_names_every_column():
    import pyarrow as pa

    from ncii_match.rescans.rescan import results_schema

    text = (ROOT / "docs" / "rescans.md").read_text(encoding="utf-8")
    named = {name for line in text.splitlines() if line.startswith("| `") for name in re.findall(r"`([^`]+)`", line)}
    assert named >= set(results_schema(pa.string()).names)


def test_pages_state_the_defaults_of_the_code():
    from ncii_match.adapters.asgi import CheckUploads  # needs an extra that CI's environment for clusters lacks

    uploads = read_page("upload-pipelines")
    parameters = inspect.signature(CheckUploads).parameters
    assert Policy().deadline is None
    assert f"stopped after {DECODING_SECONDS:g} seconds" in uploads
    assert f"`max_body` bytes ({parameters['max_body'].default >> 20} MiB)" in uploads
    assert f"`max_parts` parts ({parameters['max_parts'].default:,})" in uploads
    assert f"`max_pictures` pictures ({parameters['max_pictures'].default})" in uploads
    assert f"`in_memory` bytes ({parameters['in_memory'].default >> 20} MiB)" in uploads
    assert f"Both are {DecodeLimits().max_bytes >> 20} MiB by default" in uploads
    assert f"at most {MOST_MATCHES} matches and at most {MOST_HOLDS} holds" in uploads
    for page in ("README.md", "docs/index.md", "docs/quickstart.md"):
        assert f"{PDQ_THRESHOLD} of {PDQ.bits} bits" in (ROOT / page).read_text(encoding="utf-8"), page
    assert f"quality below {PDQ_MIN_QUALITY} " in (ROOT / "docs" / "index.md").read_text(encoding="utf-8")


def test_every_status_and_outcome_stands_on_the_page_about_uploads():
    uploads = read_page("upload-pipelines")
    firsts = [line.split("|")[1] for line in uploads.splitlines() if line.startswith("| `")]
    assert {status.name for status in Status} <= set(re.findall(r"`([A-Z_]+)`", " ".join(firsts)))
    assert all(outcome.name in uploads for outcome in Outcome)


def test_the_glossary_has_the_words_of_the_field():
    glossary = read_page("glossary")
    for word in (
        *("perceptual hash", "near-duplicate", "false positive", "precision", "recall"),
        *("allowlist", "hash list", "moderation", "query", "index"),
    ):
        assert re.search(rf"^- \*\*(.*, )?{word}(, .*)?\*\*", glossary, re.MULTILINE), word


def anchors_of(page):
    """Names by which links reach the headings of a page, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", page.read_text(encoding="utf-8")):
        linked = page.parent / target if target else page
        assert linked.exists(), f"{page.name} points at {target}"
        assert not anchor or anchor in anchors_of(linked), f"{page.name} points at {target}#{anchor}"


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


def test_the_reference_is_made_from_docstrings_that_parse():
    """A malformed section is reported by the parser, and a line of two fields shows as a second colon."""
    made = subprocess.run(
        [sys.executable, "docs/generate.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False,
        timeout=120,
    )  # fmt: skip
    assert made.stderr == ""
    lines = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8").splitlines()
    assert not [line for line in lines if " : " in line]
    assert not [line for line in lines if re.search(r"^- `[^`]*`: *$", line)], "a field without a meaning"


def test_the_reference_has_every_public_name_once():
    """Those at the top, and those that a package below states in ``__all__``."""
    import griffe

    import ncii_match

    headings = re.findall(r"^### `(\w+)", (ROOT / "docs" / "reference.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(headings) == sorted(set(ncii_match.__all__) - {"__version__"})
    text = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    package = griffe.load("ncii_match", search_paths=[ROOT])
    exports = {
        str(name)
        for module in package.modules.values() if not module.is_alias
        for below in (module, *module.modules.values())
        for name in below.exports or ()
    }  # fmt: skip
    assert exports
    assert not {name for name in exports if not re.search(rf"^(### |- )`{name}\b", text, re.MULTILINE)}
