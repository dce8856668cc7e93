"""Fixtures that many tests share, and the option --all."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import sizes
from hypothesis import settings
from PIL import Image

settings.register_profile("no clock", deadline=None)  # a busy machine is no failure
settings.load_profile("no clock")

ROOT = Path(__file__).parent.parent
PHOTOS = ROOT / "data" / "fixtures" / "photos"
VECTORS = ROOT / "data" / "fixtures" / "vectors"


def pytest_addoption(parser):
    parser.addoption("--all", action="store_true", help="let the long tests do everything, which takes half an hour")


def pytest_configure(config):
    config.addinivalue_line("markers", "long: takes many seconds; runs with --all only")
    if config.getoption("--all"):
        os.environ[sizes.ALL] = "1"


def pytest_collection_modifyitems(items):
    if not sizes.does_all():
        left_out = pytest.mark.skip(reason="a long test: pytest --all runs it")
        for item in items:
            if item.get_closest_marker("long"):
                item.add_marker(left_out)


@pytest.fixture(scope="session")
def photos():
    """Name to RGB pixels of every fixture photograph."""
    files = sorted(path for path in PHOTOS.iterdir() if path.suffix in (".png", ".jpg"))
    return {path.name: np.asarray(Image.open(path).convert("RGB")) for path in files}


@pytest.fixture(scope="session")
def golden():
    """Rows of the golden vectors made by pdqhash and ImageHash."""
    return json.loads((VECTORS / "photos.json").read_text())["rows"]


@pytest.fixture
def rng():
    return np.random.default_rng(20260501)
