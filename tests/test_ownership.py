"""Who may import what: each heavy dependency has owners, in one table, and nothing imports in a circle."""

import json
import shutil
import subprocess
import sys

import grimp
import pytest
from conftest import ROOT

OWNERS = {
    "fcntl": ("files", "sandbox"),
    "numba": ("kernels",),
    "llvmlite": ("kernels",),
    "PIL": ("decode", "evaluate"),
    "faiss": ("index",),
    "sqlalchemy": ("bank.truth", "bank.snapshots", "bank.transfer"),
    "alembic": ("bank.truth",),
    "sqlite3": ("bank.snapshots.restoration",),
    "pyarrow": ("schemas", "bank.snapshots", "bank.transfer", "jobs", "rescans", "evaluate", "adapters"),
    "cryptography": ("bank.crypto",),
    "ijson": ("bank.transfer",),
    "cv2": ("evaluate",),
    "matplotlib": ("evaluate",),
    "statsmodels": ("evaluate",),
    "jinja2": ("evaluate", "rescans"),
    "markupsafe": ("evaluate",),
    "typer": ("cli",),
    "click": ("cli",),
    "rich": ("cli",),
    "threatexchange": ("adapters",),
    "python_multipart": ("adapters",),
    "ray": ("adapters",),
    "pyspark": ("adapters",),
}
"""By dependency: the packages and modules of ``ncii_match`` that import it themselves. Every other one may not."""

FREE = {"numpy"}
"""Any module may import these."""

PACKAGES = sorted(
    {".".join(path.relative_to(ROOT).parent.parts) for path in (ROOT / "ncii_match").rglob("*.py")} - {"ncii_match"}
)
"""Every package below the first."""

PLANTED = "import fcntl, faiss, numba, PIL, sqlalchemy, pyarrow, cv2, typer, ray, threatexchange, requests\n"


def violations(graph):
    """Module and dependency of each import that the table does not allow; what is in no table has no owner."""
    standard = sys.stdlib_module_names - set(OWNERS)
    return sorted(
        (module, dependency)
        for module in graph.modules
        if module.startswith("ncii_match")
        for dependency in graph.find_modules_directly_imported_by(module)
        if not dependency.startswith("ncii_match")
        and dependency not in standard | FREE
        and not any(f"{module}.".startswith(f"ncii_match.{owner}.") for owner in OWNERS.get(dependency, ()))
    )


def circles(graph):
    """Groups of modules that import each other, directly or through others."""
    following = {
        module: {name for name in graph.find_modules_directly_imported_by(module) if name.startswith("ncii_match")}
        for module in graph.modules
        if module.startswith("ncii_match")
    }
    reached = {}
    for module in following:
        seen, waiting = set(), [module]
        while waiting:
            for name in following[waiting.pop()] - seen:
                seen.add(name)
                waiting.append(name)
        reached[module] = seen
    return {
        tuple(sorted(other for other in reached[module] if module in reached[other]))
        for module in following
        if module in reached[module]
    }


def build():
    """What is imported when the code runs, inside functions too; not what type checkers alone read."""
    return grimp.build_graph(
        "ncii_match", include_external_packages=True, exclude_type_checking_imports=True, cache_dir=None
    )


@pytest.fixture(scope="module")
def graph():
    return build()


def test_each_dependency_is_imported_by_its_owners_only(graph):
    assert violations(graph) == []


def test_every_owner_is_there(graph):
    for dependency, owners in OWNERS.items():
        for owner in owners:
            assert f"ncii_match.{owner}" in graph.modules, f"{owner} owns {dependency}"


def test_nothing_imports_in_a_circle(graph):
    assert circles(graph) == set()


def test_a_planted_import_is_caught_in_every_package(tmp_path):
    shutil.copytree(ROOT / "ncii_match", tmp_path / "ncii_match", ignore=shutil.ignore_patterns("__pycache__"))
    for package in PACKAGES:
        (tmp_path.joinpath(*package.split(".")) / "planted.py").write_text(PLANTED)
    script = (
        f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT / 'tests')!r}]\n"
        "import json, test_ownership\n"
        "print(json.dumps(test_ownership.violations(test_ownership.build())))"
    )
    result = subprocess.run(
        [sys.executable, "-P", "-c", script],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    caught = {}
    for module, dependency in json.loads(result.stdout):
        caught.setdefault(module, set()).add(dependency)
    planted = {name.strip() for name in PLANTED.removeprefix("import ").split(",")}
    for package in PACKAGES:
        allowed = {
            dependency
            for dependency, owners in OWNERS.items()
            if any(f"{package}.".startswith(f"ncii_match.{owner}.") for owner in owners)
        }
        assert caught[f"{package}.planted"] == planted - allowed, package
