"""Every example in a docstring runs, and every public name has one."""

import doctest
import importlib
import inspect

import pytest
from conftest import ROOT

import ncii_match
from ncii_match.errors import NciiMatchError

PACKAGE = ROOT / "ncii_match"
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in sorted(PACKAGE.rglob("*.py"))
    if ">>> " in path.read_text()
]
PACKAGES = ["ncii_match", *(f"ncii_match.{name}" for name in ("evaluate", "index", "outcomes", "sandbox", "values"))]
"""Packages and modules whose public names have examples."""


@pytest.mark.parametrize("module", MODULES)
def test_examples_run(module, tmp_path, monkeypatch):
    """Each in a directory of its own."""
    monkeypatch.chdir(tmp_path)
    loaded = importlib.import_module(module)
    results = doctest.testmod(loaded, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert results.attempted
    assert not results.failed


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_has_an_example(package):
    """Constants need none, nor do single errors."""
    loaded = importlib.import_module(package)
    values = {name: getattr(loaded, name) for name in loaded.__all__ if name != "__version__"}
    assert values
    without = [
        name
        for name, value in values.items()
        if (inspect.isclass(value) or inspect.isfunction(value))
        and ">>> " not in (value.__doc__ or "")
        and not (inspect.isclass(value) and issubclass(value, NciiMatchError) and value is not NciiMatchError)
    ]
    assert without == []


def test_there_are_examples():
    assert len(MODULES) > 20
    assert ncii_match.__all__
