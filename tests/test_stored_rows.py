"""What is stored, found and cut into chunks: folders, datasets, lists, buckets."""

import json
import logging
import os
from contextlib import contextmanager
from pathlib import Path
from shutil import copytree
from tempfile import TemporaryDirectory

import pyarrow as pa
import pytest
from pyarrow import feather, fs
from pyarrow import parquet as pq
from rescans import bank_of, folder_of, matcher_of, mirrored, picture, pictures_in, results, run, some

import ncii_match as nm
from ncii_match.errors import InputError
from ncii_match.jobs.file_systems import redact_secrets
from ncii_match.jobs.stored_rows import Chunks, find_rows
from ncii_match.values import PDQ_512, Hashes


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    return bank_of(tmp_path_factory.mktemp("bank") / "bank")


def ids(stored, size=3):
    chunks = Chunks(stored, size)
    read = [chunks.read(number) for number in range(len(chunks))]
    assert [batch.num_rows for batch in read] == [chunks.rows_of(number) for number in range(len(chunks))]
    return [one for batch in read for one in batch.column("id").to_pylist()]


def decided(source, bank, **options):
    """Id to outcome and status."""
    stored = find_rows(source)
    chunks = Chunks(stored, 2)
    batches = (chunks.read(number) for number in range(len(chunks)))
    with matcher_of(bank) as matcher:
        found = nm.rescan(batches, matcher, opened=stored.opened, **options)
        return {row["id"]: (row["outcome"], row["status"]) for batch in found for row in batch.to_pylist()}


# --- folders --------------------------------------------------------------------------------------------------------


ODD = ["a b.png", "ünï/日本.png", "new\nline.png", "100%.png", "a?b#c.png", "s3:/x.png", "-rf", "'\"", "back\\slash"]


def test_every_file_of_a_folder_is_a_row_by_its_name(tmp_path, bank):
    folder_of(tmp_path / "media", {name: picture(1) for name in ODD})
    stored = find_rows(tmp_path / "media")
    assert ids(stored) == sorted(ODD)
    assert decided(tmp_path / "media", bank) == dict.fromkeys(ODD, ("MATCH", "OK"))
    assert ids(find_rows(f"file://{tmp_path}/media")) == sorted(ODD)
    assert ids(find_rows(f"{tmp_path}/media/../media/")) == sorted(ODD)


def test_names_that_are_no_text_are_read_too(tmp_path, bank):
    folder_of(tmp_path / "media", {"a.png": picture(1)})
    with open(os.fsencode(tmp_path) + b"/media/b\xff.png", "wb") as file:
        file.write(picture(2))
    assert decided(tmp_path / "media", bank) == {"a.png": ("MATCH", "OK"), "b\\xff.png": ("MATCH", "OK")}
    (tmp_path / "media" / "b\\xff.png").write_bytes(picture(3))
    with pytest.raises(InputError, match="rename"):
        find_rows(tmp_path / "media")


def test_links_are_followed_and_a_circle_ends(tmp_path, bank):
    media = folder_of(tmp_path / "media", {"a.png": picture(1), "deep/b.png": picture(5)})
    folder_of(tmp_path / "elsewhere", {"c.png": picture(2)})
    (media / "other").symlink_to(tmp_path / "elsewhere")
    (media / "file").symlink_to(tmp_path / "elsewhere" / "c.png")
    (media / "nothing").symlink_to("nowhere")
    (media / "deep" / "up").symlink_to(media)
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(media / "pipe")
    assert decided(media, bank) == {
        "a.png": ("MATCH", "OK"),
        "deep/b.png": ("NO_MATCH", "OK"),
        "file": ("MATCH", "OK"),
        "nothing": ("UNREADABLE", "CANNOT_READ"),
        "other/c.png": ("MATCH", "OK"),
    }


@contextmanager
def as_nobody(*places):
    """Root may read everything: for so long it is somebody else, to whom these places and all in them belong."""
    if os.geteuid() != 0:
        yield
        return
    for place in places:
        for path in (place, *place.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


NOBODY = 65534


def test_what_may_not_be_read_is_a_row(bank):
    with TemporaryDirectory() as place:  # below directories that anybody may enter, as pytest's are not
        what_may_not_be_read(Path(place), bank)


def what_may_not_be_read(tmp_path, bank):
    bank = Path(copytree(bank, tmp_path / "bank"))
    media = folder_of(tmp_path / "media", {"a.png": picture(1), "locked.png": picture(1), "shut/b.png": picture(1)})
    (media / "locked.png").chmod(0)
    (media / "shut").chmod(0)
    try:
        with as_nobody(tmp_path):
            found = decided(media, bank)
    finally:
        (media / "shut").chmod(0o700)
    unreadable = ("UNREADABLE", "CANNOT_READ")
    assert found == {"a.png": ("MATCH", "OK"), "locked.png": unreadable, "shut": unreadable}


def test_a_picture_that_is_gone_or_a_pipe_by_now_is_unreadable_and_nothing_waits(tmp_path, bank):
    media = pictures_in(tmp_path / "media", 3)
    stored = find_rows(media)
    (media / "00000.png").unlink()
    (media / "00002.png").unlink()
    os.mkfifo(media / "00002.png")
    with matcher_of(bank) as matcher:
        (batch,) = nm.rescan([stored.read(0, 3)], matcher, opened=stored.opened)
    assert batch.column("status").to_pylist() == ["CANNOT_READ", "OK", "CANNOT_READ"]


def test_one_file_is_a_folder_of_one(tmp_path, bank):
    (tmp_path / "one.png").write_bytes(picture(1))
    assert decided(tmp_path / "one.png", bank) == {"one.png": ("MATCH", "OK")}


def test_nothing_there(tmp_path, bank):
    (tmp_path / "empty").mkdir()
    assert find_rows(tmp_path / "empty").rows == 0
    assert run(tmp_path / "out", tmp_path / "empty", bank)["rows"] == 0
    with pytest.raises(InputError, match="does not exist; check the path"):
        find_rows(tmp_path / "nothing")
    for address in ("zz://me:hush@host/x", "s3:///x?secret_key=hush"):
        with pytest.raises(InputError) as caught:
            find_rows(address)
        assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("s3://KEY:hush@bucket/x", "s3://bucket/x"),
        ("s3://KEY:hu/sh@bucket/x", "s3://bucket/x"),
        ("s3://KEY:hu@sh@bucket/x", "s3://bucket/x"),
        ("s3:/KEY:hush@bucket/x", "s3:/bucket/x"),
        ("s3://bucket/?secret_key=hush", "s3://bucket/"),
        ("--out=s3://KEY:hush@bucket/x?y=hush", "--out=s3://bucket/x"),
        ("'s3://a:hush@b' and 's3://a:hush@c' differ", "'s3://b' and 's3://c' differ"),
        ("hdfs://node:8020/user/me@corp/x", "hdfs://node:8020/user/me@corp/x"),
        ("s3://bucket/me@home/x", "s3://bucket/me@home/x"),
        ("/srv/what?/me@x", "/srv/what?/me@x"),
        ("^(?:a|b)", "^(?:a|b)"),
    ],
)
def test_secrets_are_taken_out_of_addresses_and_out_of_nothing_else(text, told):
    assert redact_secrets(text) == told


@pytest.mark.parametrize("size", [0, -1])
def test_chunks_have_rows(tmp_path, size):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="1 or more"):
        Chunks(find_rows(tmp_path / "empty"), size)


def test_a_fingerprint_is_of_names_sizes_and_times(tmp_path):
    media = pictures_in(tmp_path / "media", 3)
    first = find_rows(media).fingerprint
    assert find_rows(media).fingerprint == first
    seen = {first}
    os.utime(media / "00001.png", ns=(5, 5))
    seen.add(find_rows(media).fingerprint)
    (media / "00001.png").write_bytes(b"12345")
    os.utime(media / "00001.png", ns=(5, 5))
    seen.add(find_rows(media).fingerprint)
    (media / "00001.png").rename(media / "00003.png")
    seen.add(find_rows(media).fingerprint)
    (media / "00003.png").unlink()
    seen.add(find_rows(media).fingerprint)
    assert len(seen) == 5


# --- datasets -------------------------------------------------------------------------------------------------------


def table(first=0, n=7):
    ids = pa.array(range(first, first + n), pa.int64())
    return pa.table({"other": ids, "id": ids, "bytes": pa.array([picture(k) for k in range(n)], pa.binary())})


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(content, path, row_group_size=2)
    elif path.suffix == ".feather":
        feather.write_feather(content, str(path), chunksize=3)
    else:
        with pa.ipc.new_file(path, content.schema) as file:
            file.write_table(content, 3)


@pytest.mark.parametrize("ending", ["parquet", "arrow", "feather", "ipc", "PARQUET"])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
def test_a_dataset_is_cut_anywhere(tmp_path, ending, size):
    write(tmp_path / f"0.{ending.lower()}", table())
    if ending.isupper():
        (tmp_path / "0.parquet").rename(tmp_path / "0.PARQUET")
    write(tmp_path / "1.parquet", table(7, 0))
    write(tmp_path / "deep" / "2.parquet", table(7, 4))
    stored = find_rows(tmp_path)
    assert (stored.contents, stored.rows) == ("bytes", 11)
    assert ids(stored, size) == list(range(11))
    chunks = Chunks(stored, size)
    first = chunks.read(0)
    assert first.schema.names == ["id", "bytes"]
    assert first.schema.field("bytes").type == pa.large_binary()  # a chunk may have more than 2 GiB
    assert first.column("bytes").to_pylist() == [picture(k) for k in [*range(7), *range(4)][:size]]


def test_a_dataset_without_a_row(tmp_path, bank):
    write(tmp_path / "media.parquet", table(n=0))
    assert run(tmp_path / "out", tmp_path / "media.parquet", bank)["outcomes"] == {}


def test_what_writers_leave_beside_a_dataset_is_not_of_it(tmp_path):
    write(tmp_path / "part-0.parquet", table())
    folder_of(tmp_path, {"_SUCCESS": b"", ".part-0.parquet.crc": b"x", ".00000001.parquet.draft": b"x"})
    assert ids(find_rows(tmp_path)) == list(range(7))
    (tmp_path / "_picture.png").write_bytes(b"")  # but no file that may be a picture is passed over
    assert find_rows(tmp_path).contents == "path"
    assert find_rows(tmp_path).rows == 5


def test_hashes_are_never_taken_for_those_of_another_algorithm(tmp_path):
    """Arrow joins columns whose metadata differ, and keeps the first one's."""
    for name, algorithm in (("a", nm.PDQ), ("b", PDQ_512)):
        made = Hashes(algorithm, some(3).bits).to_arrow()
        pq.write_table(pa.table({"id": range(3), "hash": made.column("hash")}, schema=pa.schema(
            [pa.field("id", pa.int64()), made.schema.field("hash")])), tmp_path / f"{name}.parquet")  # fmt: skip
    with pytest.raises(InputError, match=r"b\.parquet has other columns"):
        find_rows(tmp_path)


@pytest.mark.parametrize(
    "other",
    [
        {"id": ["a"], "bytes": [b""]},
        {"id": [1], "path": ["a"]},
        {"id": [1]},
        {"bytes": [b""]},
        {"id": [1], "bytes": ["text"]},
        {"id": [1], "bytes": [b""], "path": ["x"]},
    ],
)
def test_files_of_a_dataset_must_have_the_same_columns(tmp_path, other):
    write(tmp_path / "a.parquet", table())
    write(tmp_path / "b.parquet", pa.table(other))
    with pytest.raises(InputError, match=r"other columns|no column 'id'|give exactly one"):
        find_rows(tmp_path)


def test_files_that_differ_in_what_may_be_null_are_one_dataset(tmp_path):
    write(tmp_path / "a.parquet", table())
    strict = pa.schema([pa.field("id", pa.int64(), False), pa.field("bytes", pa.large_binary(), False)])
    write(tmp_path / "b.parquet", table(7).select(["id", "bytes"]).cast(strict))
    assert ids(find_rows(tmp_path), 10) == list(range(14))


def test_a_dataset_that_is_changed_while_it_is_read_is_refused(tmp_path):
    write(tmp_path / "a.parquet", table())
    stored = find_rows(tmp_path)
    stored.read(0, 2)
    write(tmp_path / "a.parquet", table(n=3))
    with pytest.raises(InputError, match="was changed after it was listed; give the command again"):
        stored.read(2, 4)


@pytest.mark.parametrize("content", [b"", b"PAR1 nonsense", b"ARROW1"])
@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_a_broken_dataset_is_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match="cannot be read"):
        find_rows(tmp_path / name)


def test_paths_in_a_dataset(tmp_path, bank):
    folder_of(tmp_path, {"media/a.png": picture(1), "far/b.png": picture(2)})
    paths = ["a.png", str(tmp_path / "far" / "b.png"), f"file://{tmp_path}/far/b.png", "none.png", "../far/b.png", None]
    write(tmp_path / "media" / "list.parquet", pa.table({"id": range(6), "path": paths}))
    match, none = ("MATCH", "OK"), ("UNREADABLE", "CANNOT_READ")
    wanted = {0: match, 1: match, 2: match, 3: none, 4: match, 5: ("UNREADABLE", "EMPTY")}
    assert decided(tmp_path / "media" / "list.parquet", bank) == wanted


# --- lists ----------------------------------------------------------------------------------------------------------


def test_a_csv(tmp_path, bank):
    folder_of(tmp_path, {"a.png": picture(1), "b, c\nd.png": picture(2)})
    (tmp_path / "list.csv").write_text(
        f'\ufeffid,size,path\n007,1,a.png\nNA,2,"b, c\nd.png"\n"x ""y""",3,{tmp_path}/a.png\nz,4,none.png\n'
    )
    match = ("MATCH", "OK")
    wanted = {"007": match, "NA": match, 'x "y"': match, "z": ("UNREADABLE", "CANNOT_READ")}
    assert decided(tmp_path / "list.csv", bank) == wanted
    (tmp_path / "list.csv").write_text("path\na.png\n")
    assert decided(tmp_path / "list.csv", bank) == {"a.png": match}
    (tmp_path / "list.csv").write_text("path,id\n")
    assert decided(tmp_path / "list.csv", bank) == {}


@pytest.mark.parametrize(("given", "kind"), [([7, 8], pa.int64()), (["2024-01-01", "7"], pa.string())])
def test_ndjson_keeps_ids_as_they_are(tmp_path, bank, given, kind):
    folder_of(tmp_path, {"2024-01-01": picture(1)})
    rows = [{"id": one, "path": "2024-01-01", "more": {"x": 1}} for one in given]
    (tmp_path / "list.ndjson").write_text("\n\n".join(json.dumps(one) for one in rows) + "\n")
    stored = find_rows(tmp_path / "list.ndjson")
    assert stored.read(0, 2).schema.field("id").type == kind
    assert decided(tmp_path / "list.ndjson", bank) == dict.fromkeys(given, ("MATCH", "OK"))
    (tmp_path / "list.jsonl").write_text('{"path": "2024-01-01"}')
    assert decided(tmp_path / "list.jsonl", bank) == {"2024-01-01": ("MATCH", "OK")}


SECRET = "ab" * 32


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", ""),
        ("a.csv", "file\na.png\n"),
        ("a.csv", "path,path\na,b\n"),
        ("a.csv", "path,id,id\na,b,c\n"),
        ("a.csv", f"path,hash\na,{SECRET}\nb,{SECRET},{SECRET}\n"),
        ("a.ndjson", f'{{"path": "a", "hash": "{SECRET}"'),
        ("a.ndjson", '{"path": 7}'),
        ("a.ndjson", '["path"]'),
        ("a.ndjson", '{"id": 7}'),
        ("a.ndjson", '{"path": "a", "id": 7}\n{"path": "a"}'),
        ("a.ndjson", f'{{"path": "a", "id": 7}}\n{{"path": "a", "id": "{SECRET}"}}'),
        ("a.ndjson", '{"path": "\\ud800"}'),
        ("a.ndjson", '{"path": "a", "id": 99999999999999999999}'),
    ],
)
def test_a_list_that_cannot_be_understood_is_refused(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError) as caught:
        find_rows(tmp_path / name)
    assert name in str(caught.value)
    assert SECRET not in str(caught.value)


# --- S3 -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bucket():
    from moto.server import ThreadedMotoServer

    for name in ("werkzeug", "moto", "botocore"):
        logging.getLogger(name).setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    options = "endpoint_override={}:{}&scheme=http&region=us-east-1".format(*server.get_host_and_port())
    system, _ = fs.FileSystem.from_uri(f"s3://me:hushhush@media?{options}&allow_bucket_creation=true")
    system.create_dir("media")
    yield system, lambda path: f"s3://me:hushhush@media/{path}?{options}"
    server.stop()


def put(system, path, content):
    with system.open_output_stream(f"media/{path}") as stream:
        stream.write(content)


def test_a_folder_in_a_bucket_as_one_here(tmp_path, bank, bucket):
    system, address = bucket
    files = {"a b.png": picture(1), "deep/c%d.png": picture(9), "deep/d?.png": picture(2), "e": b""}
    for name, content in files.items():
        put(system, f"pictures/{name}", content)
    stored = find_rows(address("pictures"))
    assert ids(stored) == sorted(files)
    assert "hush" not in stored.fingerprint
    assert decided(address("pictures"), bank) == decided(folder_of(tmp_path / "here", files), bank)
    said = run(tmp_path / "far", address("pictures"), bank)
    assert said["outcomes"] == {"MATCH": 2, "NO_MATCH": 1, "UNREADABLE": 1}
    near = results(tmp_path / "far")
    run(tmp_path / "near", tmp_path / "here", bank)
    assert {name: one for name, one in results(tmp_path / "near").items() if name != "job.json"} == {
        name: one for name, one in near.items() if name != "job.json"
    }
    system.delete_file("media/pictures/deep/d?.png")
    found = {row["id"]: row["status"] for row in _again(stored, bank)}
    assert found["deep/d?.png"] == "CANNOT_READ"
    with pytest.raises(InputError, match="the input is not what"):
        run(tmp_path / "far", address("pictures"), bank)
    for path in tmp_path.rglob("*.json*"):
        assert "hush" not in path.read_text()


def _again(stored, bank):
    with matcher_of(bank) as matcher:
        for batch in nm.rescan([stored.read(0, stored.rows)], matcher, opened=stored.opened):
            yield from batch.to_pylist()


def test_datasets_and_lists_in_a_bucket(bank, bucket, tmp_path):
    system, address = bucket
    write(tmp_path / "t.parquet", table())
    put(system, "set/t.parquet", (tmp_path / "t.parquet").read_bytes())
    outcomes = {k: ("MATCH" if k in (1, 2) else "NO_MATCH", "OK") for k in range(7)}
    assert decided(address("set"), bank) == outcomes
    assert decided(address("set/t.parquet"), bank) == outcomes
    put(system, "lists/x/one.png", mirrored(1))
    (tmp_path / "here.png").write_bytes(picture(2))
    addresses = ["x/one.png", address("lists/x/one.png"), f"file://{tmp_path}/here.png", "x/none.png"]
    lines = [json.dumps({"id": k, "path": one}) for k, one in enumerate(addresses)]
    put(system, "lists/some.jsonl", "\n".join(lines).encode())
    none, unreadable = ("NO_MATCH", "OK"), ("UNREADABLE", "CANNOT_READ")
    assert decided(address("lists/some.jsonl"), bank) == {0: none, 1: none, 2: ("MATCH", "OK"), 3: unreadable}


@pytest.mark.parametrize("root", ["media", "", "media/"])
def test_a_file_system_may_be_given(tmp_path, bank, root):
    folder_of(tmp_path / "media", {"a.png": picture(1), "deep/b.png": picture(9)})
    handler = fs.SubTreeFileSystem(str(tmp_path if root else tmp_path / "media"), fs.LocalFileSystem())
    stored = find_rows(root, handler)
    assert ids(stored) == ["a.png", "deep/b.png"]
    assert [row["outcome"] for row in _again(stored, bank)] == ["MATCH", "NO_MATCH"]


def test_nothing_in_a_bucket(bucket):
    with pytest.raises(InputError, match="s3://media/nothing does not exist") as caught:
        find_rows(bucket[1]("nothing"))
    assert "hush" not in str(caught.value)
