"""Pictures, altered and hashed: every row follows from the picture and the plan alone, and nothing is done twice."""

import json
import os
import shutil
from dataclasses import replace
from io import BytesIO

import numpy as np
import pyarrow as pa
import pytest
from evaluations import GROUPS, PLAN, STEPS, make, write_pictures
from PIL import Image
from pyarrow import parquet as pq
from shaky import Shaky

from ncii_match import PDQ, PDQ_512, PHASH, Hashes, InputError, Status, Views, hash_images
from ncii_match.decode.limits import DecodeLimits
from ncii_match.errors import JobError
from ncii_match.evaluate import findings, trials
from ncii_match.evaluate.experiment import RESULTS, Experiment, grouping, read_settings, read_trials
from ncii_match.evaluate.transforms import Step
from ncii_match.evaluate.trial_table import load_trials
from ncii_match.evaluate.trials import NO_DISTANCE, STRATA, UNALTERED, Trials, picture_seed, view_distances
from ncii_match.ingest import PictureHasher
from ncii_match.jobs.directory import locked_directory
from ncii_match.jobs.hash_columns import hashes_of
from ncii_match.jobs.stored_rows import Chunks, find_rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_pictures(tmp_path_factory.mktemp("pictures") / "in")


@pytest.fixture(scope="module")
def done(folder, tmp_path_factory):
    return make(folder, tmp_path_factory.mktemp("experiment") / "out")


@pytest.fixture(scope="module")
def rows(done):
    return pa.concat_tables(read_trials(done.out, PLAN.schema().names))


def contents(out):
    return {file.name: file.read_bytes() for file in sorted((out / "trials").iterdir())}


def test_each_picture_has_a_row_and_one_for_each_step(folder, rows):
    wanted = []
    for path in sorted(folder.iterdir()):
        alone = path.name in ("broken@00.png", "tiny@00.png")
        wanted += [(path.name, label) for label in (UNALTERED, *(() if alone else [one.label for one in STEPS]))]
    assert list(zip(rows.column("id").to_pylist(), rows.column("step").to_pylist(), strict=True)) == wanted
    assert set(rows.column("group").to_pylist()) == {name.partition("@")[0] for name, _ in wanted}


def test_rows_are_what_hashing_the_copies_gives(folder, rows):
    name = "coffee@10.png"
    mine = rows.filter(pa.compute.equal(rows.column("id"), name)).combine_chunks().to_batches()[0]
    pixels = np.asarray(Image.open(folder / name).convert("RGB"))
    uploads = [folder / name, *(step.apply(pixels, picture_seed(PLAN.seed, name)) for step in STEPS)]
    wanted, kept = hash_images(uploads, PDQ, views=Views.ALL), hashes_of(mine)
    np.testing.assert_array_equal(kept.bits, wanted.bits)
    np.testing.assert_array_equal(kept.quality, wanted.quality)
    np.testing.assert_array_equal(kept.status, wanted.status)
    apart = [
        NO_DISTANCE
        if wanted.status[row]
        else sum(int(a ^ b).bit_count() for a, b in zip(one, wanted.bits[0], strict=True))
        for row, one in enumerate(wanted.bits)
    ]
    assert [value for row in mine.column("distances").to_pylist() for value in row] == apart
    witness = hash_images(uploads, PHASH, views=Views.BORDERS)
    packed = np.frombuffer(b"".join(mine.column("witness_hashes").to_pylist()), np.uint8)
    np.testing.assert_array_equal(packed, witness.bits.reshape(-1))
    first = hash_images([folder / name], PHASH)
    expected = view_distances(witness, first, len(Views.BORDERS))
    assert mine.column("witness_distances").to_pylist() == expected.tolist()
    assert expected[0, 0] == 0


def test_what_cannot_be_looked_at_says_so(rows):
    for name, status in (("broken@00.png", Status.CORRUPT), ("tiny@00.png", Status.OK)):
        (row,) = rows.filter(pa.compute.equal(rows.column("id"), name)).to_pylist()
        assert Status(row["statuses"][0]) in (status, Status.TRUNCATED), name
    (broken,) = rows.filter(pa.compute.equal(rows.column("id"), "broken@00.png")).to_pylist()
    assert set(broken["distances"]) == {NO_DISTANCE}
    assert broken["stratum"] == ""
    assert set(broken["witness_distances"]) == {NO_DISTANCE}


def test_a_reference_step_is_what_distances_count_from(folder, tmp_path):
    plan = replace(PLAN, reference=STEPS[0], witness=None, views=Views.UPRIGHT)
    make(folder, tmp_path / "out", settings=plan)
    table = pa.concat_tables(read_trials(tmp_path / "out", ["id", "step", "distances"]))
    for row in table.to_pylist():
        if row["step"] == STEPS[0].label:
            assert row["distances"] == [0]
    moved = [row["distances"][0] for row in table.to_pylist() if row["step"] == UNALTERED]
    assert any(0 < one < NO_DISTANCE for one in moved)


def test_both_hashes_are_compared_with_the_reference(folder, tmp_path):
    """By a loop over what is stored: the bank would hold the step's hash, and the witness's of the same pixels."""
    plan = replace(PLAN, reference=STEPS[3])
    make(folder, tmp_path / "out", settings=plan, most=6)
    rows = pa.concat_tables(read_trials(tmp_path / "out", plan.schema().names)).to_pylist()
    banked = {row["id"]: row for row in rows if row["step"] == STEPS[3].label}
    (broken,) = (row for row in rows if row["id"] not in banked)
    assert {*broken["distances"], *broken["witness_distances"]} == {NO_DISTANCE}
    for row in rows:
        if row is broken:
            continue
        for column, distances, size in (("hashes", "distances", 32), ("witness_hashes", "witness_distances", 8)):
            first = int.from_bytes(banked[row["id"]][column][:size])
            for view, apart in enumerate(row[distances]):
                bits = int.from_bytes(row[column][size * view : size * (view + 1)])
                assert apart == ((bits ^ first).bit_count() if bits else NO_DISTANCE), (row["id"], row["step"], column)
    assert all(row["witness_distances"][0] == 0 for row in banked.values())
    assert any(0 < row["witness_distances"][0] < NO_DISTANCE for row in rows if row["step"] == UNALTERED)


def test_what_has_no_hash_has_no_distance():
    """On either side: a bank that could not take the picture holds nothing to be near to."""
    bits = np.random.default_rng(3).integers(0, 256, (4, 32), np.uint8)
    status = np.array([Status.OK, Status.NO_BORDER, Status.OK, Status.OK], np.uint8)
    uploads = Hashes(PDQ, bits, status=status)
    first = [sum(int(a ^ b).bit_count() for a, b in zip(row, bits[3], strict=True)) for row in bits]
    banked = Hashes(PDQ, bits[3:])
    assert view_distances(uploads, banked, 2).tolist() == [[first[0], NO_DISTANCE], [first[2], 0]]
    lost = replace(banked, status=np.array([Status.OUT_OF_MEMORY], np.uint8))
    assert view_distances(uploads, lost, 2).tolist() == [[NO_DISTANCE] * 2] * 2


@pytest.mark.parametrize(("height", "width", "copied"), [(16, 40, True), (40, 16, True), (15, 40, False)])
def test_copies_are_made_of_pictures_from_sixteen_pixels_on(height, width, copied):
    pixels = np.random.default_rng(4).integers(0, 256, (height, width, 3), np.uint8)
    rows = Trials(replace(PLAN, views=Views.UPRIGHT, witness=None)).make_rows("small", "small", pixels)
    assert len(rows) == (1 + len(STEPS) if copied else 1)


@pytest.mark.parametrize("workers", [1, 3])
def test_threads_and_sources_change_nothing(folder, done, tmp_path, workers):
    names = sorted(path.name for path in folder.iterdir())
    table = pa.table({"id": names, "bytes": [(folder / name).read_bytes() for name in names]})
    pq.write_table(table, tmp_path / "pictures.parquet", row_group_size=4)
    make(tmp_path / "pictures.parquet", tmp_path / "out", workers=workers)
    assert contents(tmp_path / "out") == contents(done.out)
    (folder.parent / "list.csv").write_text("id,path\n" + "".join(f"{name},in/{name}\n" for name in names))
    make(folder.parent / "list.csv", tmp_path / "listed", workers=workers)
    assert contents(tmp_path / "listed") == contents(done.out)


def test_what_is_done_is_not_done_again(folder, done, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(done.out, out)
    before = contents(out)
    (out / "trials" / "00000002.parquet").unlink()
    stamps = {file.name: file.stat().st_mtime_ns for file in (out / "trials").iterdir()}
    told = []
    experiment = Experiment(out, Chunks(find_rows(folder), 5), PLAN, groups=GROUPS, workers=2)
    experiment.run(told.append)
    assert contents(out) == before
    assert {file.name: file.stat().st_mtime_ns for file in (out / "trials").iterdir() if file.name in stamps} == stamps
    assert told == [experiment.rows - 5, experiment.rows]


def test_another_experiment_is_refused_unless_begun_anew(folder, done, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(done.out, out)
    for changed in (
        {"settings": replace(PLAN, seed=8)},
        {"settings": replace(PLAN, steps=STEPS[:2])},
        {"settings": replace(PLAN, witness=None)},
        {"groups": None},
        {"most": 3},
        {"chunk": 2},
    ):
        with pytest.raises(InputError, match="--restart"):
            make(folder, out, **changed)
    assert contents(out) == contents(done.out)
    make(folder, out, most=3, restart=True)
    assert [len(table) for table in read_trials(out, ["id"])] == [3 * 6]
    assert read_settings(out)["rows"] == 3


def test_two_pictures_of_one_name_are_refused_before_the_work(folder, tmp_path):
    names = ("coffee@00.png", "rocket@00.png")
    table = pa.table({"id": ["same", "same"], "bytes": [(folder / name).read_bytes() for name in names]})
    pq.write_table(table, tmp_path / "twice.parquet")
    with pytest.raises(InputError, match="2 pictures have the id 'same'"):
        make(tmp_path / "twice.parquet", tmp_path / "out", groups=None)
    make(tmp_path / "twice.parquet", tmp_path / "out", groups=None, most=1)


def test_a_reference_must_be_a_step():
    with pytest.raises(InputError, match="not among the steps"):
        replace(PLAN, reference=Step("jpeg", 75))


def test_files_of_others_are_not_touched(folder, tmp_path):
    out = tmp_path / "out"
    (out / "trials").mkdir(parents=True)
    theirs = out / "trials" / "mine.parquet"
    theirs.write_bytes(b"precious")
    for restart in (False, True):
        with pytest.raises(InputError, match="not this evaluation's"):
            make(folder, out, most=1, restart=restart)
    assert theirs.read_bytes() == b"precious"


def test_results_go_when_there_will_be_others(folder, tmp_path):
    out = tmp_path / "out"
    make(folder, out, most=1)
    (out / "findings.json").write_text("{}")
    make(folder, out, most=1)
    assert (out / "findings.json").exists()
    make(folder, out, most=1, restart=True)
    assert not (out / "findings.json").exists()


def test_results_go_when_a_chunk_is_made_again(folder, tmp_path):
    """They said something of the chunk that is not there any more."""
    out = tmp_path / "out"
    made = make(folder, out, chunk=1, most=2)
    for name in RESULTS:
        (out / name).write_text("{}")
    made.run()
    assert all((out / name).exists() for name in RESULTS)
    (out / "trials" / "00000001.parquet").unlink()
    made.run()
    assert not any((out / name).exists() for name in RESULTS)


def test_beginning_anew_removes_its_own_files_and_no_others(folder, tmp_path):
    out = tmp_path / "out"
    make(folder, out, chunk=1, most=3)
    theirs = ("notes.txt", "0000001.parquet", "x00000001.parquet", "00000001.parquet.bak", ".mine.draft")
    for name in theirs:
        (out / "trials" / name).write_bytes(b"precious")
    (out / "trials" / ".00000007.parquet.draft").write_bytes(b"of a run that was killed")
    make(folder, out, chunk=1, most=2, restart=True)
    assert {path.name for path in (out / "trials").iterdir()} == {"00000000.parquet", "00000001.parquet", *theirs}
    assert all((out / "trials" / name).read_bytes() == b"precious" for name in theirs)


OTHER = {
    "groups": {"groups": "^."}, "rows": {"most": 3}, "chunk": {"chunk": 2}, "seed": {"settings": replace(PLAN, seed=8)},
    "steps": {"settings": replace(PLAN, steps=STEPS[:2])}, "reference": {"settings": replace(PLAN, reference=STEPS[1])},
    "algorithm": {"settings": replace(PLAN, algorithm=PDQ_512)},
    "views": {"settings": replace(PLAN, views=Views.DIHEDRAL)},
    "jpeg": {"settings": replace(PLAN, jpeg="luma")}, "witness": {"settings": replace(PLAN, witness=None)},
    "limits": {"settings": replace(PLAN, limits=DecodeLimits(max_pixels=10**6))},
}  # fmt: skip


@pytest.fixture(scope="module")
def begun(folder, tmp_path_factory):
    """Nothing is done yet."""
    return Experiment(tmp_path_factory.mktemp("begun") / "out", Chunks(find_rows(folder), 5), PLAN, groups=GROUPS)


@pytest.mark.parametrize("key", OTHER)
def test_another_question_is_refused_by_its_name(folder, begun, key):
    settings = {"settings": PLAN, "groups": GROUPS, "chunk": 5} | OTHER[key]
    chunks = Chunks(find_rows(folder), settings.pop("chunk"))
    with pytest.raises(InputError, match=f"was begun with another {key}; choose another --out, or --restart"):
        Experiment(begun.out, chunks, **settings)


@pytest.mark.parametrize("formats", [("PNG",), ("JPEG", "PNG")])
def test_other_formats_are_other_limits(folder, begun, formats):
    plan = replace(PLAN, limits=DecodeLimits(formats=frozenset(formats)))
    with pytest.raises(InputError, match="was begun with another limits;"):
        Experiment(begun.out, Chunks(find_rows(folder), 5), plan, groups=GROUPS)


@pytest.mark.parametrize(
    "version", ["ncii_match.evaluate.experiment.__version__", "numpy.__version__", "cv2.__version__", "PIL.__version__"]
)
def test_another_version_of_what_makes_and_hashes_copies_is_refused(folder, begun, monkeypatch, version):
    monkeypatch.setattr(version, "0.0.1")
    with pytest.raises(InputError, match="was begun with another versions;"):
        Experiment(begun.out, Chunks(find_rows(folder), 5), PLAN, groups=GROUPS)


def test_another_input_is_refused(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "in")
    Experiment(tmp_path / "out", Chunks(find_rows(tmp_path / "in"), 5), PLAN)
    os.utime(tmp_path / "in" / "coffee@00.png", ns=(1, 1))
    with pytest.raises(InputError, match=r"the input is not what .* was begun with; choose another --out"):
        Experiment(tmp_path / "out", Chunks(find_rows(tmp_path / "in"), 5), PLAN)


def test_every_setting_has_a_test_above(begun):
    assert {*OTHER, "versions", "input"} == {*begun.identity} - {"format"}
    assert begun.identity["format"] == 1


def test_one_works_at_a_time(folder, tmp_path):
    experiment = make(folder, tmp_path / "out", most=1)
    with locked_directory(tmp_path / "out"):
        with pytest.raises(JobError, match="another process"):
            experiment.run()
        with pytest.raises(JobError, match="another process"):
            make(folder, tmp_path / "out", most=1, restart=True)
    make(folder, tmp_path / "out", most=2, restart=True)
    with pytest.raises(InputError, match="was begun with another rows"):
        experiment.run()


def test_what_cannot_be_read_is_tried_again(folder, tmp_path):
    stored = Shaky(folder, ["coffee@00.png", "gone.png"])
    Experiment(tmp_path / "out", Chunks(stored, 5), PLAN, workers=1).run()
    table = pa.concat_tables(read_trials(tmp_path / "out", ["id", "statuses"]))
    assert table.column("id").to_pylist() == ["coffee@00.png"] * 6 + ["gone.png"]
    assert table.column("statuses")[0].as_py()[0] == Status.OK
    assert table.column("statuses")[6].as_py()[0] == Status.CANNOT_READ


@pytest.mark.parametrize("fails", ["reading", "altering", "hashing"])
def test_a_copy_for_which_memory_did_not_suffice_is_made_again(folder, tmp_path, done, monkeypatch, fails):
    """Of a picture in the middle of a chunk; the rows are those of an undisturbed run."""
    failed = []
    apply, hashed = Step.apply, PictureHasher.hash

    def altering(step, *args, **kwargs):
        if step == STEPS[2] and len(failed) < 2:
            failed.append(step)
            raise MemoryError
        return apply(step, *args, **kwargs)

    def hashing(hasher, sources):
        found = hashed(hasher, sources)
        if isinstance(sources[0], np.ndarray) and len(failed) < 2:
            failed.append(sources)
            none = np.full_like(found.status, Status.OUT_OF_MEMORY)
            found = replace(found, bits=np.zeros_like(found.bits), status=none)
        return found

    def reading(source, limits):
        if len(failed) < 2:
            failed.append(source)
            raise MemoryError
        return read(source, limits)

    read = trials.read_pixels
    if fails == "reading":
        monkeypatch.setattr(trials, "read_pixels", reading)
    elif fails == "altering":
        monkeypatch.setattr(Step, "apply", altering)
    else:
        monkeypatch.setattr(PictureHasher, "hash", hashing)
    make(folder, tmp_path / "out")
    assert len(failed) == 2
    assert contents(tmp_path / "out") == contents(done.out)


def test_a_step_for_which_memory_never_suffices_is_left_out(folder, tmp_path, monkeypatch):
    apply = Step.apply

    def altering(step, *args, **kwargs):
        if step == STEPS[2]:
            raise MemoryError
        return apply(step, *args, **kwargs)

    monkeypatch.setattr(Step, "apply", altering)
    made = make(folder, tmp_path / "out", most=2)
    (table,) = read_trials(made.out, ["id", "step"])
    assert table.column("step").to_pylist() == ["", *(one.label for one in STEPS if one != STEPS[2])] * 2


def test_a_line_of_pixels_is_a_picture_too():
    for shape in [(1, 50, 3), (50, 1, 3), (1, 1, 3)]:
        line = np.full(shape, 240, np.uint8)
        line[:, ::3] = 0
        (row,) = Trials(PLAN).make_rows("rule", "rule", line).to_pylist()
        assert row["step"] == UNALTERED
        assert row["stratum"] in STRATA


def test_a_chunk_that_is_not_there_is_missed(done, tmp_path):
    """And made again by the same command; files that are none of its chunks are not read."""
    out = tmp_path / "out"
    shutil.copytree(done.out, out)
    (out / "trials" / "00000002.parquet").unlink()
    (out / "trials" / "zz.parquet").write_bytes(b"not a chunk")
    with pytest.raises(InputError, match=r"00000002.parquet is not there; the same evaluation again makes what"):
        load_trials(out)
    (out / "trials" / ".00000002.parquet.draft").write_bytes(b"of a run that was killed")


def test_ids_that_are_not_text(folder, tmp_path):
    contents = [(folder / name).read_bytes() for name in ("coffee@00.png", "rocket@00.png")]
    pq.write_table(pa.table({"id": [b"\xff", b"b"], "bytes": contents}), tmp_path / "bytes.parquet")
    Experiment(tmp_path / "out", Chunks(find_rows(tmp_path / "bytes.parquet")), PLAN, workers=1).run()
    assert set(load_trials(tmp_path / "out").ids) == {"\\xff", "b"}
    pq.write_table(pa.table({"id": ["a", None], "bytes": contents}), tmp_path / "none.parquet")
    with pytest.raises(InputError, match="a row has no id; give each one of its own"):
        Experiment(tmp_path / "other", Chunks(find_rows(tmp_path / "none.parquet")), PLAN)


def test_groups_that_take_no_part():
    group_of = grouping("^(p0)?.*$")
    assert [group_of(name) for name in ("p0-a", "p0-b", "other", "third")] == ["p0", "p0", "other", "third"]


def test_an_empty_text_is_no_group():
    """Else names in which nothing is found would all show the same, and their false pairs would not be counted."""
    names = ("7-a", "7-b", "other", "third")
    for expression in (r"\d*", r"^(\d*)", r"^\d*|nothing"):
        assert [grouping(expression)(name) for name in names] == ["7", "7", "other", "third"]
    assert len({grouping("^")(name) for name in names}) == 1  # that all show one thing is said on purpose
    assert len({grouping(None)(name) for name in names}) == 4


def test_a_step_that_a_picture_is_too_long_for_is_left_out():
    long = np.random.default_rng(2).integers(0, 256, (20, 17_000, 3), np.uint8)
    steps = (Step("mirror", 1), Step("webp", 70), Step("grey", 1))
    batch = Trials(replace(PLAN, steps=steps, views=Views.UPRIGHT, witness=None)).make_rows("long", "long", long)
    assert batch.column("step").to_pylist() == [UNALTERED, steps[0].label, steps[2].label]
    assert batch.column("distances").to_pylist()[0] == [0]
    reference = replace(PLAN, steps=steps, views=Views.UPRIGHT, witness=None, reference=steps[1])
    (row,) = Trials(reference).make_rows("long", "long", long).to_pylist()
    assert Status(row["statuses"][0]) is Status.UNSUPPORTED_INPUT


def test_too_few_pictures_are_refused_before_anything_is_begun(folder, tmp_path):
    (tmp_path / "in").mkdir()
    for told in ("there is no picture; give at least 2", "there is 1 picture; give at least 2"):
        with pytest.raises(InputError, match=told):
            Experiment(tmp_path / "out", Chunks(find_rows(tmp_path / "in")), PLAN)
        shutil.copy(folder / "coffee@00.png", tmp_path / "in")
    assert not (tmp_path / "out").exists()
    (tmp_path / "in" / "text.png").write_text("no picture")
    Experiment(tmp_path / "out", Chunks(find_rows(tmp_path / "in")), PLAN).run()
    with pytest.raises(InputError, match=r"\(1 could not be read: text.png, \w+, and so on\); give more, with another"):
        findings.compute_findings(tmp_path / "out", findings.Question(31, 50))


def test_hashes_and_nonsense_are_refused(tmp_path):
    hashes = hash_images([np.zeros((64, 64), np.uint8)])
    pq.write_table(pa.table({"id": ["a"], "hash": hashes.to_arrow().column("hash")}), tmp_path / "hashes.parquet")
    with pytest.raises(InputError, match="give pictures"):
        Experiment(tmp_path / "out", Chunks(find_rows(tmp_path / "hashes.parquet")), PLAN)
    write_pictures(tmp_path / "in")
    with pytest.raises(InputError, match="expression"):
        Experiment(tmp_path / "out", Chunks(find_rows(tmp_path / "in")), PLAN, groups="(")


def test_damaged_files_are_named(done, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(done.out, out)
    file = out / "trials" / "00000001.parquet"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(InputError, match="00000001"):
        list(read_trials(out, ["id"]))
    (out / "experiment.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(InputError, match="another version"):
        read_settings(out)


def test_a_byte_that_is_another_one_is_noticed(done, tmp_path):
    """In the middle of a page, where Parquet itself reads on and gives another hash."""
    out = tmp_path / "out"
    shutil.copytree(done.out, out)
    file = out / "trials" / "00000001.parquet"
    whole, plain = file.read_bytes(), pq.read_table(file, columns=["hashes"])
    (place,) = (
        column for k in range(len(PLAN.schema()))
        if (column := pq.ParquetFile(file).metadata.row_group(0).column(k)).path_in_schema == "hashes"
    )  # fmt: skip
    first = place.dictionary_page_offset or place.data_page_offset
    silent = 0
    for at in range(first + 200, first + place.total_compressed_size - 200, 997):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        try:
            if pq.read_table(file, columns=["hashes"]).equals(plain):
                continue  # of no consequence, in what is said about a page
        except (OSError, ValueError, pa.ArrowException):
            continue  # noticed anyway
        silent += 1
        with pytest.raises(InputError, match=r"00000001.parquet is damaged \(.*\); delete it and evaluate again"):
            list(read_trials(out, ["hashes"]))
    assert silent > 3


def test_a_picture_gets_the_same_chance_wherever_it_is():
    assert picture_seed(0, "a") != picture_seed(0, "b") != picture_seed(1, "b")
    assert picture_seed(3, "a") == picture_seed(3, "a") < 1 << 48


def test_grey_and_odd_pictures_are_altered_too(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    grey = Image.fromarray(np.random.default_rng(1).integers(0, 256, (60, 80), np.uint8)).resize((200, 150))
    grey.save(folder / "grey.png")
    grey.convert("RGBA").save(folder / "alpha.webp", lossless=True)
    stream = BytesIO()
    grey.convert("CMYK").save(stream, "JPEG")
    (folder / "cmyk.jpg").write_bytes(stream.getvalue())
    make(folder, tmp_path / "out", settings=replace(PLAN, steps=(Step("jpeg", 75), Step("sepia", 100))))
    table = pa.concat_tables(read_trials(tmp_path / "out", ["id", "step", "distances"]))
    assert len(table) == 9
    assert all(min(row["distances"]) <= 31 for row in table.to_pylist())
