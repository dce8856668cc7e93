"""Fixtures that many tests share."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
PHOTOS = ROOT / "data" / "fixtures" / "photos"
VECTORS = ROOT / "data" / "fixtures" / "vectors"


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
