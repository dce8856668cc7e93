"""Rescans on Ray: the same rows and the same bytes as in one process, whatever becomes of its workers."""

import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

pytest.importorskip("ray")

import ray
from clusters import (
    PATIENCE,
    check_command,
    check_kill,
    check_stops,
    emptied,
    media_in,
    ran,
    rows_again,
    rows_wanted,
    wanted,
)

from ncii_match.adapters import ray as adapter
from ncii_match.errors import BankError, InputError
from ncii_match.values import Views

VIEWS = Views.DIHEDRAL[:2]


# Ray Data warns of its own defaults.
pytestmark = pytest.mark.filterwarnings(r"ignore:`use_\w+` is deprecated:DeprecationWarning:ray\.data\.context")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return media_in(tmp_path_factory.mktemp("ray"))


@pytest.fixture(scope="module")
def want(place):
    return wanted(place)


@pytest.fixture(scope="module")
def _ray():
    """A Ray of this module's own, three processors of it."""
    ray.init(
        address="local", num_cpus=3, include_dashboard=False, object_store_memory=1 << 28, log_to_driver=False,
        logging_level="ERROR",
    )  # fmt: skip
    yield
    ray.shutdown()


def is_working(pid):
    """Ray gives its workers the name of what they are at."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::do")


def test_the_command_leaves_the_same_bytes(place, want):
    check_command(place, "ray", want)


def test_a_cluster_that_is_not_there_is_told(place):
    """And none is started in its place."""
    emptied(place)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", "127.0.0.1:1")
        code, out, said = ran(place, "--engine", "ray", "--json")
    assert (code, out) == (1, "")
    assert "ncii-match: there is no Ray to work with" in said
    assert "Traceback" not in said


@pytest.mark.usefixtures("_ray")
@pytest.mark.parametrize(("asked", "joins"), [(None, True), ("local", False)])
def test_which_ray_a_job_works_with(asked, joins):
    """The one on this machine, or one of its own where that is asked for."""
    program = """import ray
from ncii_match.adapters.ray import _connect
_connect()
print(ray.get_runtime_context().gcs_address)"""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment |= {"RAY_ADDRESS": asked} if asked else {}
    made = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True, timeout=PATIENCE
    )
    assert (made.stdout.strip() == ray.get_runtime_context().gcs_address) is joins


@pytest.mark.usefixtures("_ray")
def test_a_worker_that_is_killed_loses_nothing(place, want, monkeypatch):
    check_kill(place, adapter.RayScheduler, adapter, is_working, want, monkeypatch)


@pytest.mark.usefixtures("_ray")
def test_what_stops_a_job_stops_it_in_the_same_words(place, want):
    check_stops(place, adapter.RayScheduler)


@pytest.mark.usefixtures("_ray")
def test_a_dataset_gives_the_rows_that_rescan_gives(place):
    """Pictures, then the hashes that were kept of them, after a Parquet file that Ray has written."""
    given = ray.data.read_parquet(str(place / "media.parquet")).repartition(6)
    how = {"views": VIEWS, "isolation": "thread"}
    made = adapter.rescan_dataset(given, place / "bank", keep_hashes=True, concurrency=2, **how)
    made.write_parquet(str(place / "judged"))
    judged = ray.data.read_parquet(str(place / "judged"))
    want = rows_wanted(place, keep_hashes=True, views=VIEWS)
    assert same(judged, want)
    hashed = judged.select_columns(["id", "hashes", "qualities", "statuses"]).repartition(3)
    assert same(adapter.rescan_dataset(hashed, place / "bank", **how), rows_again(place, want))


@pytest.mark.usefixtures("_ray")
def test_a_bank_that_is_none_is_refused_before_anything_runs(place):
    with pytest.raises(BankError, match=f"{place / 'media'} is not a bank"):
        adapter.rescan_dataset(ray.data.range(3), place / "media")


@pytest.mark.usefixtures("_ray")
@pytest.mark.parametrize("workers", [0, 3, 4])
def test_workers_that_leave_no_processor_to_read_with_are_refused(place, workers):
    with pytest.raises(InputError, match=f"concurrency is {workers}, and Ray has 3 processors; leave one to read with"):
        adapter.rescan_dataset(ray.data.range(3), place / "bank", concurrency=workers)


def same(made, want):
    got = pa.concat_tables(ray.get(made.to_arrow_refs()), promote_options="default").sort_by("id")
    return got.schema.names == want.schema.names and got.to_pylist() == want.sort_by("id").to_pylist()
