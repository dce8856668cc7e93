"""Rules of the house, run instead of remembered."""

import ast
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import naive
import pytest
from conftest import ROOT

import ncii_match
from ncii_match.kernels import jit

PACKAGE = ROOT / "ncii_match"
SOURCES = sorted(PACKAGE.rglob("*.py"))
HEAVY = ("numba", "faiss", "pyarrow", "PIL", "cv2", "numpy", "sqlalchemy", "typer", "rich", "jinja2")


def nodes(path):
    return ast.walk(ast.parse(path.read_text()))


def test_layers():
    """Imports go downwards only."""
    result = subprocess.run(
        [Path(sys.executable).parent / "lint-imports"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert result.returncode == 0, result.stdout


def test_every_kernel_has_a_naive_twin():
    jit.compile_all()
    assert len(jit.COMPILED) >= 12
    kernels = {name.rpartition(".")[2] for name in jit.COMPILED}
    assert not {name for name in kernels if not hasattr(naive, name)}
    tested = (ROOT / "tests" / "test_kernels.py").read_text()
    assert not {name for name in kernels if not re.search(rf"\bnaive\.{name}\(", tested)}, "a twin is not used"
    twin_imports = [
        node for node in nodes(ROOT / "tests" / "naive.py") if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert {alias.name for node in twin_imports for alias in node.names} == {"math", "numpy"}


def test_every_kernel_lets_go_of_the_interpreter_and_keeps_the_order_of_its_sums():
    jit.compile_all()
    for name, kernel in jit.COMPILED.items():
        options = kernel.targetoptions
        assert options["nogil"], name
        assert not options.get("fastmath"), name
        assert not options.get("parallel"), name
        assert len(kernel.signatures) == 1, f"{name} is compiled for more than one signature"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_forbidden(path):
    for node in nodes(path):
        assert not isinstance(node, ast.Assert), f"line {node.lineno}: raise a real error instead"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in ("print", "eval", "exec"), f"line {node.lineno}"
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            assert not {"pickle", "dill", "cloudpickle", "marshal", "shelve"} & {name.split(".")[0] for name in names}
        if isinstance(node, ast.keyword):
            assert node.arg not in ("fastmath", "parallel", "allow_pickle"), f"line {node.value.lineno}"
    assert path.stem not in ("utils", "common", "tools", "helpers", "base", "core", "manager")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_files_creates_renames_and_syncs(path):
    """Permissions, the order of fsync and rename, and who may follow a link are decided in one package."""
    if path.parent == PACKAGE / "files":
        return
    calls = {"fsync", "fdatasync", "rename", "renames", "fchmod", "mkstemp", "flock", "lockf", "touch"}
    of_os = {"replace", "O_CREAT", "O_EXCL", "O_TRUNC", "O_APPEND", "O_NOFOLLOW"}
    for node in nodes(path):
        if isinstance(node, ast.Attribute):
            owner = node.value.id if isinstance(node.value, ast.Name) else ""
            own = (node.attr in calls and owner != "atomic") or (node.attr in of_os and owner == "os")
            assert not own, f"line {node.lineno}: ncii_match.files does {node.attr}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "mkdir":
            modes = [keyword for keyword in node.keywords if keyword.arg == "mode"]
            assert not modes, f"line {node.lineno}: private.make_folder does it"


EMPTY_NAMES = {"one", "ones", "found", "said", "kept", "made", "told", "held", "place", "places", "thing", "things"}
"""Names that say nothing about what they hold, in any case and with any underscores."""


def bound_names(path):
    """Every name that a module binds, with its line: variables, attributes, arguments, functions, classes, imports."""
    for node in nodes(path):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()) | ast.arg(arg=name):
                yield node.lineno, name
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield node.lineno, name
            case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)) | ast.ExceptHandler(name=str(name)):
                yield node.lineno, name
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                yield from ((node.lineno, alias.asname) for alias in aliases if alias.asname)


def test_every_name_says_what_it_holds():
    empty = [
        f"{path.relative_to(PACKAGE)}:{line}: {name}"
        for path in SOURCES
        for line, name in bound_names(path)
        if name.lower().strip("_") in EMPTY_NAMES
    ]
    assert not empty


def test_a_class_name_has_one_meaning():
    modules = {}
    for path in SOURCES:
        for node in nodes(path):
            if isinstance(node, ast.ClassDef):
                modules.setdefault(node.name, []).append(str(path.relative_to(PACKAGE)))
    assert {name: paths for name, paths in modules.items() if len(paths) > 1} == {}


def test_the_threshold_is_written_once():
    """31 as a number, and 50 as a quality, stand in one place each; everything else refers to them."""
    for number in (31, 50):
        found = [
            f"{path.relative_to(ROOT)}:{node.lineno}"
            for path in SOURCES
            for node in nodes(path)
            if isinstance(node, ast.Constant) and type(node.value) is int and node.value == number
        ]
        assert len(found) == 1, found
        assert found[0].startswith("ncii_match/algorithms.py")
    for path in [*SOURCES, *PACKAGE.rglob("*.j2")]:
        if path.name != "algorithms.py":
            assert not re.search(r"\b31 bits\b", path.read_text()), path


def test_import_loads_nothing_heavy():
    script = f"import sys, ncii_match; print([name for name in {HEAVY!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.strip() == "[]"


def test_each_public_name_resolves_and_only_loads_what_it_needs():
    for name in ncii_match.__all__:
        assert getattr(ncii_match, name) is not None
    assert set(dir(ncii_match)) >= set(ncii_match.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = ncii_match.nothing
    script = "import sys, ncii_match as nm; nm.PDQ, nm.Hashes; print('numba' in sys.modules, 'PIL' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.strip() == "False False"


def test_no_module_hides_a_public_name():
    """Importing ``ncii_match.x`` sets the attribute ``x`` of the package, which would stand before the public name."""
    modules = {path.stem if path.stem != "__init__" else path.parent.name for path in PACKAGE.glob("*")}
    assert not modules & set(ncii_match.__all__)


LAZY = [path for path in PACKAGE.rglob("__init__.py") if "lazy_names(" in path.read_text()]
"""Packages whose public names are loaded on first use."""


@pytest.mark.parametrize("path", LAZY, ids=lambda path: path.parent.name)
def test_type_checkers_see_what_users_see(path):
    """The lazy table, the imports under TYPE_CHECKING and ``__all__`` name the same things from the same modules."""
    package = import_module(".".join(path.parent.relative_to(ROOT).parts))
    typed = {
        alias.asname: node.module
        for node in nodes(path)
        if isinstance(node, ast.ImportFrom) and node.module != "ncii_match.lazy_names"
        for alias in node.names
        if alias.asname
    }
    assert typed == {name: module for module, names in package.HOMES.items() for name in names}
    assert set(typed) == set(package.__all__) - {"__version__"}
    for name in typed:
        assert getattr(package, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = package.nothing


def test_the_public_surface_is_small():
    assert len(ncii_match.__all__) <= 40


def test_every_public_name_is_documented():
    reference = (ROOT / "docs" / "reference.md").read_text()
    for name in ncii_match.__all__:
        if name == "__version__":
            continue
        value = getattr(ncii_match, name)
        assert f"`{name}" in reference, f"{name} is not in docs/reference.md"
        if callable(value):
            assert (value.__doc__ or "").strip(), name
            assert not (value.__doc__ or "").startswith(f"{name}("), f"{name} has only the generated docstring"


def test_no_hash_in_the_messages_of_errors():
    """Hashes are sensitive: no raise formats bits, texts or hex into its message."""
    for path in SOURCES:
        for node in nodes(path):
            if isinstance(node, ast.Raise) and node.exc is not None:
                names = {name.id for name in ast.walk(node.exc) if isinstance(name, ast.Name)}
                assert not names & {"bits", "hex", "packed", "stripped", "texts"}, f"{path}:{node.lineno}"


def test_a_check_loads_no_database_and_no_event_loop(tmp_path):
    """What starts ``scan`` is what a check needs: no SQL, no Arrow, no asyncio, no ciphers, nothing of evaluate."""
    with ncii_match.Bank.create(tmp_path / "bank") as bank:
        bank.add(ncii_match.Hashes.from_hex(["f8" * 32]), case="c", source="s", force=True)
        bank.publish()
    picture = ROOT / "data" / "fixtures" / "photos" / "coffee.png"
    script = (
        "import sys\nfrom ncii_match.cli.main import app\n"
        f"app(['scan', {str(picture)!r}, '--bank', {str(tmp_path / 'bank')!r}], standalone_mode=False)\n"
        "heavy = ('sqlalchemy', 'pyarrow', 'asyncio', 'cryptography', 'cv2', 'matplotlib', 'jinja2', 'faiss')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    assert result.stdout.strip() == "[]"
