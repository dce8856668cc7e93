"""docs/extending.md works as it stands: each diff applied to a copy of the package, each program run with it."""

import os
import re
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT

PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
SECTIONS = [section for section in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:] if "```diff" in section]


def block(section, language):
    return re.search(rf"^```{language}\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)[1]


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The package with its compiled kernels, and a link to the photographs."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "ncii_match", folder / "ncii_match")
    (folder / "data").symlink_to(ROOT / "data")
    return folder


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.partition("\n")[0])
def test_a_diff_of_one_file_is_all_it_takes(copy, section):
    diff = block(section, "diff")
    assert diff.count("+++ ") == 1
    assert diff.startswith("--- /dev/null\n")
    environment = {**os.environ, "PYTHONPATH": str(copy), "GIT_CEILING_DIRECTORIES": str(copy.parent)}
    applied = subprocess.run(
        ["git", "apply", "-"], cwd=copy, env=environment, input=diff, capture_output=True, text=True, check=False
    )
    assert applied.returncode == 0, applied.stderr
    program = [sys.executable, "-c", block(section, "python")]
    result = subprocess.run(
        program, cwd=copy, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == block(section, "text")


def test_new_files_are_as_ruff_wants_them(tmp_path):
    for section in SECTIONS:
        diff = block(section, "diff")
        path = tmp_path / re.search(r"^\+\+\+ b/(\S+)$", diff, re.MULTILINE)[1]
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [line[1:] for line in diff.splitlines()[3:]]
        path.write_text("\n".join(lines) + "\n")
    for command in (["check", "--no-cache", "--ignore", "INP001"], ["format", "--check", "--no-cache"]):
        result = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--config", ROOT / "pyproject.toml", tmp_path],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert result.returncode == 0, result.stdout


def test_the_page_has_every_kind():
    assert len(SECTIONS) == PAGE.count("| `ncii_match/")
