"""Rescans on Spark: the same rows and the same bytes as in one process, whatever becomes of its workers."""

import sys
from pathlib import Path

import pytest

pytest.importorskip("pyspark")

from clusters import check_command, check_kill, check_stops, emptied, media_in, ran, rows_again, rows_wanted, wanted
from pyspark.sql import SparkSession, functions

from ncii_match.adapters import spark as adapter
from ncii_match.errors import BankError, InputError
from ncii_match.values import Views

VIEWS = Views.DIHEDRAL[:2]


pytestmark = pytest.mark.filterwarnings("ignore:PySpark does not yet fully support pandas:FutureWarning")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return media_in(tmp_path_factory.mktemp("spark"))


@pytest.fixture(scope="module")
def want(place):
    return wanted(place)


@pytest.fixture(scope="module")
def session():
    """A Spark of this module's own, two processors of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYSPARK_PYTHON", sys.executable)
        made = (
            SparkSession.builder.master("local[2]")
            .config("spark.ui.enabled", "false")
            .config("spark.log.level", "OFF")
            .config("spark.driver.bindAddress", "127.0.0.1")
            .config("spark.driver.host", "127.0.0.1")
            .config("spark.sql.shuffle.partitions", "2")
            .getOrCreate()
        )
        yield made
        made.stop()


def is_working(pid):
    """A worker is a child of a daemon that is started by Java; between two chunks it waits for the next one."""
    if b"pyspark.daemon" not in Path(f"/proc/{pid}/cmdline").read_bytes():
        return False
    parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
    return b"pyspark.daemon" in Path(f"/proc/{parent}/cmdline").read_bytes()


def test_the_command_leaves_the_same_bytes(place, want):
    check_command(place, "spark", want)


def test_a_machine_without_java_is_told(place):
    emptied(place)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAVA_HOME", str(place / "nowhere"))
        code, out, said = ran(place, "--engine", "spark", "--json")
    assert (code, out) == (1, "")
    assert "ncii-match: there is no Spark to work with" in said
    assert "Traceback" not in said


@pytest.mark.usefixtures("session")
def test_a_worker_that_is_killed_loses_nothing(place, want, monkeypatch):
    check_kill(place, adapter.SparkScheduler, adapter, is_working, want, monkeypatch)


@pytest.mark.usefixtures("session")
def test_what_stops_a_job_stops_it_in_the_same_words(place):
    check_stops(place, adapter.SparkScheduler)


def test_a_frame_gives_the_rows_that_rescan_gives(place, session):
    """Pictures, then the hashes that were kept of them, after a Parquet file that Spark has written."""
    given = session.read.parquet(str(place / "media.parquet")).repartition(5)
    how = {"views": VIEWS, "isolation": "thread"}
    made = adapter.rescan_frame(given, place / "bank", keep_hashes=True, **how)
    made.write.parquet(str(place / "judged"))
    judged = session.read.parquet(str(place / "judged"))
    want = rows_wanted(place, keep_hashes=True, views=VIEWS)
    assert same(judged, want)
    hashed = judged.select("id", "hashes", "qualities", "statuses")
    again = adapter.rescan_frame(hashed, place / "bank", **how)
    assert same(again, rows_again(place, want))
    bare = hashed.select("id", "hashes").toDF("id", "hashes")
    with pytest.raises(InputError, match="'qualities' is missing"):
        adapter.rescan_frame(bare, place / "bank", **how)
    nameless = hashed.withColumn("hashes", functions.concat("hashes"))
    with pytest.raises(InputError, match="'hashes' does not say its algorithm"):
        adapter.rescan_frame(nameless, place / "bank", **how)


def test_types_keep_the_range_of_what_they_hold(place, session):
    """Nothing unsigned is left, and nothing is narrower than it was."""
    given = session.read.parquet(str(place / "media.parquet"))
    schema = adapter.rescan_frame(given, place / "bank", keep_hashes=True).schema
    assert schema["quality"].dataType.simpleString() == "smallint"
    assert schema["distance"].dataType.simpleString() == "int"
    assert schema["snapshot"].dataType.simpleString() == "bigint"
    assert schema["matches"].dataType.elementType["distance"].dataType.simpleString() == "int"
    assert schema["hashes"].metadata["ncii_match.algorithm"] == "pdq-256/full/1"


def test_a_bank_that_is_none_is_refused_before_anything_runs(place, session):
    given = session.read.parquet(str(place / "media.parquet"))
    with pytest.raises(BankError, match=f"{place / 'media'} is not a bank"):
        adapter.rescan_frame(given, place / "media")


def same(made, want):
    got = made.toArrow().sort_by("id")
    return got.schema.names == want.schema.names and got.to_pylist() == want.sort_by("id").to_pylist()
