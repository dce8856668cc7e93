"""A plain install does the upload check, the rescan and the demonstration; every other job names its extra."""

import os
import re
import subprocess
import sys
import tomllib

import pytest
from conftest import PHOTOS, ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

MODULES = {
    "postgresql": ["psycopg", "psycopg2"],
    "asgi": ["python_multipart"],
    "threatexchange": ["threatexchange"],
    "evaluate": ["cv2", "statsmodels", "matplotlib"],
    "ray": ["ray"],
    "spark": ["pyspark"],
}
"""By extra: the modules that it brings."""

WITHOUT = """
import sys

class Without:
    def __init__(self, finder):
        self._finder = finder

    def __getattr__(self, name):
        return getattr(self._finder, name)

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in ABSENT else self._finder.find_spec(name, path, target)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
for name in [name for name in sys.modules if name.partition(".")[0] in ABSENT]:
    del sys.modules[name]
"""


def run_without_extras(code, *arguments, cwd=None):
    """Run Python in which none of the extras' modules can be imported."""
    absent = sorted({name for names in MODULES.values() for name in names})
    return subprocess.run(
        [sys.executable, "-c", f"ABSENT = {absent!r}\n{WITHOUT}\n{code}", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


PROGRAM = "sys.argv[0] = 'ncii-match'\nfrom ncii_match.cli.main import run\nrun()"


def test_every_extra_is_listed():
    jobs = set(PROJECT["optional-dependencies"]) - {"test", "bench", "docs"}
    assert jobs == set(MODULES)


def test_a_plain_install_does_what_it_promises(tmp_path):
    for arguments, code in (
        (("hash", PHOTOS / "coffee.png"), 0),
        (("bank", "create", "bank"), 0),
        (("bank", "add", "bank", PHOTOS / "coffee.png", "--case", "R-17"), 0),
        (("scan", PHOTOS / "coffee.png", "--bank", "bank"), 4),
        (("rescan", PHOTOS, "--bank", "bank", "--out", "job"), 4),
        (("doctor",), 0),
        (("demo", "--out", "demo.html"), 0),
    ):
        result = run_without_extras(PROGRAM, *arguments, cwd=tmp_path)
        assert result.returncode == code, result.stderr


@pytest.mark.parametrize(
    ("extra", "code", "arguments"),
    [
        ("evaluate", PROGRAM, ("evaluate", "transforms")),
        ("evaluate", PROGRAM, ("evaluate", "pictures", PHOTOS, "--out", "evaluation")),
        ("evaluate", "from ncii_match.evaluate.charts import _matplotlib\n_matplotlib()", ()),
        ("ray", PROGRAM, ("rescan", PHOTOS, "--bank", "bank", "--out", "job", "--engine", "ray")),
        ("spark", PROGRAM, ("rescan", PHOTOS, "--bank", "bank", "--out", "job", "--engine", "spark")),
        ("asgi", "import ncii_match.adapters.asgi", ()),
        ("postgresql", "import ncii_match as nm\nnm.Bank.create('bank', url='postgresql://user@host/name')", ()),
    ],
)
def test_a_job_without_its_extra_says_how_to_install_it(extra, code, arguments, tmp_path):
    result = run_without_extras(code, *arguments, cwd=tmp_path)
    assert result.returncode == 1
    assert f"pip install '.[{extra}]'" in result.stderr


def test_nothing_tells_people_to_install_a_name_that_no_index_has():
    texts = [*(ROOT / "ncii_match").rglob("*.py"), *(ROOT / "docs").glob("*.md"), ROOT / "README.md"]
    assert [str(path) for path in texts if re.search(r"ncii-match\[", path.read_text())] == []
