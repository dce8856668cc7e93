"""How often a bank would have flagged some traffic: planted pictures, counted here by hand and by brute force."""

import io
import json
import shlex
import subprocess
import tracemalloc

import numpy as np
import pyarrow as pa
import pytest
from conftest import ROOT
from pyarrow import parquet as pq
from rescans import bank_of, mirrored, pictures_in, some
from scipy.stats import binomtest
from test_cli import run

from ncii_match.bank.bank import Bank
from ncii_match.cli.terminal import Exit
from ncii_match.decisions import Policy
from ncii_match.errors import AlgorithmMismatchError, BankCorruptError, InputError, JobError, PolicyError
from ncii_match.evaluate import bank_evaluation, entry_advice
from ncii_match.evaluate.entry_advice import MANY, MOST_DIFFERENT, Advice, EntryTally, advise
from ncii_match.jobs import hash_columns
from ncii_match.jobs.stored_rows import Chunks, find_rows
from ncii_match.matcher import Matcher
from ncii_match.outcomes import Hold, Outcome, State, Status
from ncii_match.values import PDQ, PDQ_MIN_QUALITY, PDQ_THRESHOLD, PHASH, Hashes, View

VIEWS = (View.UPRIGHT, View.MIRROR, View.TRIMMED_UPRIGHT)
RADIUS = PDQ_THRESHOLD
COPIES, PAGES = 30, 50
NAMES = ("copied", "blank", "weak", "abroad", "gone", "allowed", "confirmed", "disputed", "edge", "twin", "twice")


def flipped(bits, count, rng):
    """The same hash with so many bits changed."""
    mask = np.zeros(8 * len(bits), np.uint8)
    mask[rng.permutation(len(mask))[:count]] = 1
    return bits ^ np.packbits(mask)


class Made:
    """A bank and traffic in which everything is known."""

    def __init__(self, place):
        self.rng = np.random.default_rng(7)
        self.entries = dict(zip(NAMES, some(len(NAMES), seed=3).bits, strict=True))
        self.entries["twin"] = flipped(self.entries["edge"], 12, self.rng)
        self.bank, self.ids, self.rows = place / "bank", {}, []
        kinds = {
            "abroad": {"region": "IN"}, "confirmed": {"source": "stopncii", "state": "confirmed"},
            "disputed": {"source": "i4c", "state": "disputed"},
        }  # fmt: skip
        with Bank.create(self.bank) as bank:
            for name, bits in self.entries.items():
                one = Hashes(PDQ, bits[None], [20 if name == "weak" else 90])
                options = {"source": "own", **kinds.get(name, {})}
                (self.ids[name],) = bank.add(one, case=f"CASE-{name}", force=True, **options).entry_ids.tolist()
            bank.add(Hashes(PDQ, self.entries["twice"][None]), case="CASE-other", source="i4c", state="confirmed")
            bank.withdraw(case="CASE-gone", reason="asked")
            bank.allow(Hashes(PDQ, self.entries["allowed"][None]), radius=3, reason="the logo")
            bank.publish()
        self._fill()
        self.hashes = place / "hashes"
        write(self.hashes, self.rows)
        bits, self.quality, self.status = (np.array([row[k] for row in self.rows]) for k in (1, 2, 3))
        entries = np.array([*self.entries.values()])
        self.apart = np.bitwise_count(bits[:, :, None] ^ entries).sum(-1, dtype=np.int64)  # [pictures, views, entries]

    def put(self, name, *views, quality=90, status=0):
        """A picture: hashes of its views, None for one like no other; qualities and statuses alike for all, or each."""
        noise = some(len(VIEWS), seed=1000 + len(self.rows)).bits
        bits = [noise[k] if k >= len(views) or views[k] is None else views[k] for k in range(len(VIEWS))]
        qualities, statuses = (np.broadcast_to(np.array(one, np.uint8), len(VIEWS)) for one in (quality, status))
        self.rows.append((name, np.where(statuses[:, None] == 0, np.array(bits), 0), qualities, statuses))

    def near(self, name, count):
        return flipped(self.entries[name], count, self.rng)

    def _fill(self):
        for k in range(COPIES):  # some are turned, and found by another view only
            copy = self.near("copied", k % 7)
            self.put(f"copy-{k}", *((None, copy) if k % 3 == 0 else (copy, copy)))
        for k in range(PAGES):
            self.put(f"page-{k}", self.near("blank", RADIUS - k % 10))
            if k % 10 == 5:  # hardly another page
                self.put(f"page-{k}-again", flipped(self.rows[-1][1][0], 4, self.rng))
        for k in (0, 15):  # and copies of the reported picture itself
            self.put(f"reported-{k}", self.near("blank", k))
        for k in range(4):
            self.put(f"weak-{k}", self.near("weak", 5))
        for name in ("abroad", "gone", "allowed", "confirmed", "disputed", "twice"):
            for k in (2, 9, RADIUS):
                self.put(f"{name}-{k}", self.near(name, k))
        for k in range(RADIUS + 2):
            self.put(f"edge-{k}", self.near("edge", k), self.near("edge", min(k + 3, 40)))
        for k in range(3):
            self.put(f"poor-{k}", self.near("copied", 4), quality=PDQ_MIN_QUALITY - 1)
        self.put("fair", self.near("copied", 4), quality=PDQ_MIN_QUALITY)
        self.put("best-view", self.near("copied", 2), self.near("copied", 8), quality=[10, 90, 10])
        self.put("no-border", self.near("copied", 4), status=[0, 0, Status.NO_BORDER])
        for status in (Status.CORRUPT, Status.TIMED_OUT, Status.NO_WORKER):
            self.put(f"failed-{status}", status=status)
            self.put(f"half-{status}", self.near("edge", 17), status=[0, 0, status])
        for k in range(100):
            self.put(f"noise-{k}")


def write(place, rows, first=40):
    """Two files of hashes as ``rescan --hashes-out`` leaves them."""
    place.mkdir()
    for number, part in enumerate((rows[:first], rows[first:])):
        columns = [pa.array([row[0] for row in part])]
        for k, field in enumerate(hash_columns.fields(PDQ, VIEWS)):
            columns.append(pa.array([row[k + 1].astype(np.uint8).tobytes() for row in part], field.type))
        schema = pa.schema([pa.field("id", pa.string()), *hash_columns.fields(PDQ, VIEWS)])
        pq.write_table(pa.Table.from_arrays(columns, schema=schema), place / f"{number:08}.parquet", row_group_size=23)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return Made(tmp_path_factory.mktemp("traffic"))


def measured(made, policy=None, radius=RADIUS, chunk=64, workers=2, source=None, **options):
    policy = Policy() if policy is None else policy
    matcher = Matcher(made.bank, policy=bank_evaluation.policy_at(policy, radius), isolation="thread", workers=1)
    with matcher:
        found = bank_evaluation.count_traffic(
            Chunks(find_rows(source or made.hashes), chunk), matcher, policy, workers=workers
        )
        return bank_evaluation.traffic_figures(found, matcher, str(made.bank), **options)


def brute(made, policy, thresholds=None, rows=None):
    """Outcomes, from hashes and entries alone. thresholds : by entry; None for the policy's. rows : None for all."""
    abroad = policy.regions is not None and "IN" not in policy.regions
    bounds = [policy.threshold if thresholds is None else thresholds[name] for name in made.entries]
    for k, name in enumerate(made.entries):
        if name == "gone" or (name == "abroad" and abroad):
            bounds[k] = -1
    allowed = [*made.entries].index("allowed")
    outcomes = []
    for row in range(len(made.rows)) if rows is None else rows:
        quality, status = made.quality[row], made.status[row]
        hashed = status == Status.OK
        fit = hashed & (quality >= policy.min_quality)
        apart = np.min(made.apart[row][fit if fit.any() else hashed], axis=0, initial=999)
        hidden = apart[allowed] <= 3
        failed = [Status(int(one)) for one in status if one not in (Status.OK, Status.NO_BORDER)]
        if (apart <= bounds).any() and fit.any() and not hidden:
            outcomes.append("MATCH")
        elif failed and not hidden:
            outcomes.append("UNKNOWN" if failed[-1] in (Status.TIMED_OUT, Status.NO_WORKER) else "UNREADABLE")
        else:
            outcomes.append("LOW_QUALITY" if hashed.any() and not fit.any() else "NO_MATCH")
    return {one.name: outcomes.count(one.name) for one in Outcome}


@pytest.mark.parametrize(
    ("regions", "min_quality"),
    [(None, PDQ_MIN_QUALITY), ({"GB"}, PDQ_MIN_QUALITY), ({"IN"}, PDQ_MIN_QUALITY), (None, 0), ({"GB"}, 95)],
)
def test_figures_at_every_threshold_are_those_of_a_brute_force_count(made, regions, min_quality):
    policy = Policy(regions=regions, min_quality=min_quality)
    found = measured(made, policy)
    assert [row["threshold"] for row in found["thresholds"]] == [*range(RADIUS + 1)]
    for row in found["thresholds"]:
        wanted = brute(made, bank_evaluation.policy_at(policy, row["threshold"]))
        assert row["outcomes"] == wanted
        known = len(made.rows) - wanted["UNREADABLE"] - wanted["UNKNOWN"]
        assert (row["flagged"], row["looked_at"]) == (wanted["MATCH"], known)
        assert row["share"] == row["flagged"] / known
        assert row["per_million"] == pytest.approx(1e6 * row["flagged"] / known)
    assert found["as_it_is"] == {**share_of(found["thresholds"][RADIUS])}
    assert found["rows"] == len(made.rows)


def share_of(row):
    return {name: value for name, value in row.items() if name not in ("threshold", "states", "sources")}


def test_figures_are_what_the_matcher_says_at_each_threshold(made):
    """Not one lookup of a narrower threshold contradicts what was counted from the widest."""
    found = measured(made)
    hashes = hash_columns.hashes_of(find_rows(made.hashes).read(0, len(made.rows)))
    for row in found["thresholds"]:
        with Matcher(made.bank, policy=Policy(threshold=row["threshold"]), isolation="thread", workers=1) as matcher:
            outcomes = matcher.lookup(hashes).outcome
        assert row["outcomes"] == {one.name: int((outcomes == one).sum()) for one in Outcome}


def test_intervals_are_wilsons(made):
    row = measured(made)["thresholds"][8]
    wanted = binomtest(row["flagged"], row["looked_at"]).proportion_ci(0.95, "wilson")
    assert (row["low"], row["high"]) == pytest.approx((wanted.low, wanted.high))
    assert row["per_million_low"] == pytest.approx(1e6 * wanted.low)
    assert row["per_million_high"] == pytest.approx(1e6 * wanted.high)


def test_at_the_threshold_itself_a_picture_is_flagged(made):
    """edge-k is k bits from its entry, so that each threshold flags exactly one of them more, the last but one too."""
    only = [row for row in made.rows if row[0].startswith("edge-")]
    place = made.bank.parent / "edges"
    write(place, only)
    found = measured(made, source=place)
    assert [row["flagged"] for row in found["thresholds"]] == [*range(1, RADIUS + 2)]
    assert found["distances"] == [[k, 1] for k in range(RADIUS + 1)]  # RADIUS + 1 is beyond


def test_narrower_figures_of_a_narrower_radius_are_the_same(made):
    wide, narrow = measured(made, Policy(threshold=9)), measured(made, Policy(threshold=9), radius=9)
    assert len(narrow["thresholds"]) == 10
    for one, other in zip(narrow["thresholds"], wide["thresholds"], strict=False):
        states = {name: count for name, count in one["states"].items() if count}
        assert states == {name: count for name, count in other["states"].items() if count}
        assert share_of(one) == share_of(other)
    assert narrow["entries"] == wide["entries"]


def test_each_state_has_its_own_threshold_as_the_policy_says(made):
    policy = Policy(threshold=20, threshold_confirmed=5, threshold_disputed=RADIUS)
    found = measured(made, policy)
    own = dict.fromkeys(made.entries, 20) | {"confirmed": 5, "disputed": RADIUS}
    assert found["as_it_is"]["outcomes"] == brute(made, policy, own)  # "twice" counts as the seed that it is, too
    for row in found["thresholds"]:  # one for all states
        assert row["outcomes"] == brute(made, Policy(threshold=row["threshold"]))
    pictures = {one["entry_id"]: one["pictures"] for one in found["entries"]}
    assert pictures[made.ids["confirmed"]] == 1
    assert pictures[made.ids["disputed"]] == 3
    assert pictures[made.ids["twice"]] == 2


def test_a_picture_counts_once_for_each_state_and_source(made):
    """The entry that two cases hold is of both; one picture near it is one of each, however many views are near."""
    only = [row for row in made.rows if row[0].startswith(("twice-", "confirmed-", "disputed-", "edge-"))]
    place = made.bank.parent / "states"
    write(place, only)
    found = measured(made, source=place)
    at = {t: found["thresholds"][t] for t in (2, 8, RADIUS)}
    assert at[2]["states"] == {"SEED": 3 + 1, "CONFIRMED": 2, "DISPUTED": 1}
    assert at[8]["sources"] == {"own": 9 + 1, "i4c": 2, "stopncii": 1}
    assert at[RADIUS]["states"] == {"SEED": RADIUS + 1 + 3, "CONFIRMED": 6, "DISPUTED": 3}
    assert at[RADIUS]["flagged"] == RADIUS + 1 + 9


def test_a_hold_in_another_region_is_nobodys(tmp_path, rng):
    """Neither its state nor its source is counted, nor speaks it for the entry."""
    bits = some(1, seed=21)
    with Bank.create(tmp_path / "bank") as bank:
        bank.add(bits, case="R-1", source="own", region="GB")
        bank.add(bits, case="R-2", source="far", state="confirmed", region="IN")
        bank.publish()
    made = Made.__new__(Made)
    made.rows, made.bank, made.rng = [], tmp_path / "bank", rng
    made.put("a.png", flipped(bits.bits[0], 3, rng))
    write(tmp_path / "hashes", made.rows, first=1)
    found = measured(made, Policy(regions={"GB"}), source=tmp_path / "hashes", cases=True)
    assert found["thresholds"][3]["states"] == {"SEED": 1}
    assert found["thresholds"][3]["sources"] == {"own": 1}
    (entry,) = found["entries"]
    assert (entry["state"], entry["sources"], entry["cases"]) == ("seed", ["own"], ["R-1"])
    assert measured(made, source=tmp_path / "hashes")["entries"][0]["state"] == "confirmed"


def test_what_nobody_looked_at_is_in_no_share(made):
    found = measured(made)
    outcomes = found["thresholds"][0]["outcomes"]
    assert (outcomes["UNREADABLE"], outcomes["UNKNOWN"]) == (2, 4)  # one half of each found nothing within 0 bits
    assert (found["as_it_is"]["outcomes"]["UNREADABLE"], found["as_it_is"]["outcomes"]["UNKNOWN"]) == (1, 2)
    assert found["as_it_is"]["looked_at"] == len(made.rows) - 3
    assert found["statuses"] == {"CORRUPT": 2, "NO_WORKER": 2, "TIMED_OUT": 2}


def test_a_bank_that_fails_is_no_bank_without_matches(made, monkeypatch):
    """Chunks that were looked up while the bank could not be read are UNKNOWN, and the others stand."""
    marked = made.rows[60][1][0]

    def search(self, hashes, *arguments, **options):
        if (hashes.bits == marked).all(axis=1).any():
            raise BankCorruptError("gone")
        return real(self, hashes, *arguments, **options)

    with Matcher(made.bank, policy=Policy(), isolation="thread", workers=1) as matcher:
        kind = type(matcher.snapshot.index)
        real = kind.search
        monkeypatch.setattr(kind, "search", search)
        done = bank_evaluation.count_traffic(Chunks(find_rows(made.hashes), 50), matcher, Policy(), workers=1)
        found = bank_evaluation.traffic_figures(done, matcher, str(made.bank))
    assert found["causes"] == {"bank:BankCorruptError": 50}
    assert found["rows"] == len(made.rows)
    assert found["as_it_is"]["outcomes"]["UNKNOWN"] == 50 + 2
    assert found["as_it_is"]["looked_at"] == len(made.rows) - 53
    others = [row for row in range(len(made.rows)) if not 50 <= row < 100]
    assert found["as_it_is"]["flagged"] == brute(made, Policy(), rows=others)["MATCH"]


def test_nothing_at_all_known_gives_no_share(made, tmp_path):
    write(tmp_path / "failed", [row for row in made.rows if row[0].startswith("failed-")])
    found = measured(made, source=tmp_path / "failed")
    assert found["as_it_is"]["share"] is found["as_it_is"]["per_million_high"] is None
    assert found["as_it_is"]["outcomes"]["UNKNOWN"] == 2
    assert found["entries"] == []


def by_entry(made, found):
    names = {number: name for name, number in made.ids.items()}
    return {names[one["entry_id"]]: one for one in found["entries"]}


def test_entries_by_what_they_flagged(made):
    found = measured(made)
    entries = by_entry(made, found)
    assert found["entries_fired"] == len(entries) == len(NAMES) - 1  # the withdrawn one is not there
    assert [one["pictures"] for one in found["entries"]] == sorted(one["pictures"] for one in found["entries"])[::-1]
    copied, blank, weak = entries["copied"], entries["blank"], entries["weak"]
    assert copied["pictures"] == COPIES + 3
    assert (copied["different"], copied["largest"], copied["near"]) == (1, COPIES + 3, COPIES + 3)
    assert copied["examples"] == ["copy-0"]
    assert copied["advice"] == "plausible re-uploads"
    assert (copied["nearest"], copied["farthest"]) == (0, 8)
    assert blank["pictures"] == PAGES + 5 + 2
    assert blank["different"] == PAGES + 1  # two copies of what was reported are one picture
    assert (blank["largest"], blank["near"], blank["advice"]) == (2, 2, "suggest for the allow list")
    apart = np.sort(made.apart[:, :, [*made.entries].index("blank")].min(axis=1))
    apart = apart[apart <= RADIUS]
    quartiles = np.quantile(apart, [0, 0.25, 0.5, 0.75, 1], method="inverted_cdf").tolist()
    assert [blank[name] for name in ("nearest", "quarter", "median", "three_quarters", "farthest")] == quartiles
    assert blank["distances"] == [[int(d), int((apart == d).sum())] for d in np.unique(apart)]
    assert blank["examples"] == [f"page-{k}" for k in range(5, PAGES, 10)]
    assert (entries["edge"]["near"], entries["edge"]["largest"]) == (16, 16)  # those at 17 bits are none of its copies
    assert (weak["quality"], weak["low_quality"], weak["advice"]) == (20, True, "look at")
    assert (copied["quality"], copied["low_quality"]) == (90, False)
    assert entries["twice"]["state"] == "confirmed"
    assert entries["twice"]["sources"] == ["i4c", "own"]
    assert entries["allowed"]["pictures"] == 2  # the one within 3 bits is on the allowlist
    assert found["on_allow_list"] == 1
    assert found["advice"] == {
        one.value: [each["advice"] for each in found["entries"]].count(one.value) for one in Advice
    }
    assert "abroad" not in by_entry(made, measured(made, Policy(regions={"GB"})))


def test_poor_pictures_near_an_entry_are_said_apart(made):
    found = measured(made)
    assert found["low_quality_near"] == [[4, 3]]
    assert found["as_it_is"]["outcomes"]["LOW_QUALITY"] == 3


def test_the_result_does_not_depend_on_chunks_and_threads(made):
    wanted = measured(made, chunk=1000, workers=1)
    assert measured(made, chunk=7, workers=2) == wanted
    assert measured(made, chunk=1, workers=1) == wanted


def test_plain_hashes_are_pictures_of_one_view(made, tmp_path):
    only = [row for row in made.rows if row[0].startswith("edge-")]
    batch = Hashes(PDQ, np.array([row[1][0] for row in only])).to_arrow().select(["hash", "quality"])
    table = pa.Table.from_batches([batch]).append_column("id", pa.array(range(len(only))))
    pq.write_table(table, tmp_path / "plain.parquet")
    found = measured(made, source=tmp_path / "plain.parquet")
    assert [row["flagged"] for row in found["thresholds"]] == [*range(1, RADIUS + 2)]
    assert by_entry(made, found)["edge"]["examples"][0] == "0"


def test_what_is_no_hashes_is_refused(made, tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(b"x")
    with pytest.raises(InputError, match="these are pictures"):
        measured(made, source=tmp_path / "pictures")
    other = pa.Table.from_batches([Hashes(PHASH, np.zeros((2, 8), np.uint8)).to_arrow().select(["hash"])])
    pq.write_table(other.append_column("id", pa.array([1, 2])), tmp_path / "phash.parquet")
    with pytest.raises(AlgorithmMismatchError):
        measured(made, source=tmp_path / "phash.parquet")
    with (
        Matcher(made.bank, policy=Policy(min_quality=1), isolation="thread", workers=1) as matcher,
        pytest.raises(InputError, match="another policy"),
    ):
        bank_evaluation.count_traffic(Chunks(find_rows(made.hashes)), matcher, Policy())


def test_witness_age_and_deadline_are_left_out(made):
    """A bank that is old, or a policy that would ask for pictures, is measured all the same; what is said is that."""
    policy = Policy(witness_above=10, witness_threshold=5, max_age=1e-6, deadline=1e-9)
    found = measured(made, policy)
    assert found["as_it_is"] == measured(made)["as_it_is"]
    assert {"witness", "max_age", "deadline"}.isdisjoint(found["policy"])


# the rule

USUAL = {"degenerate": False, "low_quality": False, "confirmed": False}
ALLOW, LOOK, COPY = Advice.ALLOW_LIST, Advice.LOOK_AT, Advice.REUPLOADS


@pytest.mark.parametrize(
    ("pictures", "different", "largest", "near", "said", "wanted"),
    [
        (MANY, MANY, 1, 0, {}, ALLOW),
        (MANY, MANY - 1, 2, 0, {}, LOOK),
        (2 * MANY, MANY, MANY, 0, {}, ALLOW),
        (2 * MANY, MANY, MANY + 1, 2 * MANY, {}, LOOK),
        (MANY, MANY, 1, 0, {"low_quality": True}, ALLOW),
        (MANY, MANY, 1, 0, {"confirmed": True}, LOOK),
        (MANY, 1, MANY, MANY, {"degenerate": True}, ALLOW),
        (MANY - 1, 1, MANY - 1, MANY - 1, {"degenerate": True}, LOOK),
        (MANY, 1, MANY, MANY, {"degenerate": True, "confirmed": True}, LOOK),
        (1, 1, 1, 1, {}, COPY),
        (1, 1, 1, 0, {}, LOOK),
        (100, 1, 100, 0, {}, LOOK),
        (100, 2, 75, 75, {}, COPY),
        (100, 2, 74, 74, {}, LOOK),
        (100, MANY - 1, 80, 80, {}, COPY),
        (100, MANY, 80, 80, {}, LOOK),
        (100, 1, 100, 100, {"low_quality": True}, LOOK),
        (100, 1, 100, 100, {"confirmed": True}, COPY),
    ],
)
def test_the_rule(pictures, different, largest, near, said, wanted):
    found = advise(pictures=pictures, different=different, largest=largest, near=near, **{**USUAL, **said})
    assert found is wanted


def test_what_counts_as_one_picture(rng):
    """Two are one at half the threshold, not beyond; the nearest of several decides; what is near the entry is one."""
    first, half = some(1).bits[0], RADIUS // 2
    tally = EntryTally((), RADIUS, half)
    for distance in (0, half, half + 1):
        tally.add(distance, half + 1, flipped(first, distance, rng))
    assert (tally.names, tally.sizes, tally.spreads) == (["0", str(half + 1)], [2, 1], [half, 0])
    for name, bits in (("a", first), ("b", flipped(first, 40, rng)), ("c", flipped(first, 2, rng))):
        tally.add(name, half, bits)
    assert (tally.names[2:], tally.sizes, tally.distances[2]) == (["a"], [2, 1, 3], half)
    assert tally.spreads[2] == 40
    tally.add("d", half + 1, first)  # as "a" is, but farther from the entry
    assert tally.sizes == [3, 1, 3]
    tally = EntryTally((), RADIUS, half)
    tally.add("near", half, first)
    tally.add("far", half + 1, first)  # not taken for a copy of the entry's picture, whatever it is like
    tally.add("far again", half + 1, first)
    assert (tally.names, tally.sizes) == (["near", "far"], [1, 2])


def test_of_too_many_different_pictures_the_number_is_known():
    tally = EntryTally((), RADIUS, 15)
    different = some(MOST_DIFFERENT + 3, seed=9).bits
    for k, bits in enumerate(different):
        tally.add(k, 16 + k % 5, bits)
        tally.add(f"{k} again", 16, bits)
    assert len(tally.names) == MOST_DIFFERENT
    assert tally.sizes == [2] * MOST_DIFFERENT
    assert tally.further == 6
    np.testing.assert_array_equal(tally.hashes, different[:MOST_DIFFERENT])
    tally.add("near", 3, different[-1])  # a copy of the entry's picture is told apart all the same
    tally.add("near", 4, different[-2])
    assert (tally.names[-1], tally.sizes[-1], tally.further) == ("near", 2, 6)
    assert tally.by_distance.sum() == 2 * len(different) + 2
    (one,) = entry_advice.flagging_entries({7: held(tally)}, Policy(), KNOWN, {})
    assert one.different == MOST_DIFFERENT + 2


def test_what_comes_after_a_late_copy_is_not_remembered():
    """A copy of the entry's picture that comes after as many others as are remembered, and then ever new ones."""
    tally = EntryTally((), RADIUS, 15)
    for k, bits in enumerate(some(5 * MOST_DIFFERENT, seed=9).bits):
        tally.add(k, 3 if k == MOST_DIFFERENT else 16, bits)
    assert tally.names == [str(k) for k in range(MOST_DIFFERENT + 1)]
    assert tally.distances == [16] * MOST_DIFFERENT + [3]
    assert tally.further == 4 * MOST_DIFFERENT - 1
    assert len(tally.hashes) == MOST_DIFFERENT + 1


def test_quantiles_are_distances_that_were_met():
    tally = held(EntryTally((), RADIUS, 15))
    for k in (1, 3, 5, 9):
        tally.add(k, k, some(1).bits[0])
    (one,) = entry_advice.flagging_entries({7: tally}, Policy(), KNOWN, {})
    assert [one.quantile(share) for share in (0.25, 0.26, 0.5, 0.75, 0.76, 1)] == [1, 3, 3, 5, 9, 9]


def held(tally):
    tally.holds = (Hold("R-1", "own", State.SEED),)
    return tally


class KNOWN:
    """A snapshot that has entry 7."""

    algorithm = PDQ

    @staticmethod
    def hash_of(entry_id):
        return {7: some(1, seed=5).bits[0]}.get(entry_id)


def test_a_page_without_content_is_named(tmp_path, rng):
    """Hashes of blank and striped pages get into a bank by force or by feeds only; one that fires is called by name."""
    from ncii_match.bank.truth import degenerate_hashes

    template = degenerate_hashes.templates(PDQ).bits[7]
    with Bank.create(tmp_path / "bank") as bank:
        bank.add(Hashes(PDQ, template[None], [90]), case="R-1", source="feed", force=True)
        bank.publish()
    made = Made.__new__(Made)
    made.rows, made.bank, made.rng = [], tmp_path / "bank", rng
    for k in range(MANY):
        made.put(f"{k}.png", flipped(template, 2, rng))
    write(tmp_path / "hashes", made.rows)
    (one,) = measured(made, source=tmp_path / "hashes")["entries"]
    assert (one["degenerate"], one["low_quality"], one["different"]) == (True, False, 1)
    assert one["advice"] == "suggest for the allow list"


def test_qualities_of_many_entries_are_those_of_few(made, monkeypatch):
    wanted = {number: 20 if name == "weak" else 90 for name, number in made.ids.items()}
    assert entry_advice.entry_qualities(made.bank, set(wanted)) == wanted
    monkeypatch.setattr(entry_advice, "FEW_ENTRIES", 2)
    some_ids = {made.ids["weak"], made.ids["edge"]}
    assert entry_advice.entry_qualities(made.bank, some_ids) == {number: wanted[number] for number in some_ids}
    assert entry_advice.entry_qualities(made.bank.parent, some_ids) == {}


def test_of_unknown_quality_nothing_is_a_plausible_reupload(made, monkeypatch):
    """As in a reader's copy, or where the bank is locked: what may be of low quality is looked at."""
    number = made.ids["copied"]
    (known,) = [one for one in measured(made)["entries"] if one["entry_id"] == number]
    monkeypatch.setattr(bank_evaluation, "entry_qualities", lambda *_: {})
    found = {one["entry_id"]: one for one in measured(made)["entries"]}
    assert (known["advice"], found[number]["advice"]) == ("plausible re-uploads", "look at")
    assert (found[number]["quality"], found[number]["low_quality"]) == (None, None)
    assert not [one for one in found.values() if one["advice"] == "plausible re-uploads"]
    shown = command(made)
    (row,) = [line for line in shown.stdout.splitlines() if line.split()[:1] == [str(number)] and " seed " in line]
    assert row.split()[-3:] == ["unknown", "look", "at"]
    assert "Quality unknown: " in shown.stderr
    every = {one["entry_id"]: one for one in measured(made, Policy(min_quality=0))["entries"]}
    assert (every[number]["low_quality"], every[number]["advice"]) == (False, "plausible re-uploads")


# the command


def command(made, *arguments, code=Exit.UNREADABLE):
    return run("evaluate", "bank", made.bank, "--against", made.hashes, *arguments, code=code)


def test_the_command_says_what_the_library_says(made, tmp_path):
    out = tmp_path / "tuning"
    (found,) = [json.loads(line) for line in command(made, "--json", "--out", out).stdout.splitlines()]
    assert found == json.loads(json.dumps(measured(made)))
    assert json.loads((out / "traffic.json").read_bytes()) == found
    assert {path.name: path.stat().st_mode & 0o777 for path in out.iterdir()} == {
        "traffic.json": 0o600, "entries.parquet": 0o600,
    }  # fmt: skip
    assert out.stat().st_mode & 0o777 == 0o700
    page = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
    for name in (*found, *found["as_it_is"], *found["thresholds"][0], *pq.read_schema(out / "entries.parquet").names):
        assert f"`{name}`" in page
    rows = pq.read_table(out / "entries.parquet").to_pylist()
    assert [row["entry_id"] for row in rows] == [one["entry_id"] for one in found["entries"]]
    for row, one in zip(rows, found["entries"], strict=True):
        distances = [[pair["distance"], pair["pictures"]] for pair in row.pop("distances")]
        assert {**row, "distances": distances} == {name: one[name] for name in (*row, "distances")}
    two = json.loads(command(made, "--json", "--entries", "2", "--out", out).stdout)
    assert len(two["entries"]) == 2
    assert len(pq.read_table(out / "entries.parquet")) == two["entries_fired"] == len(rows)


def test_a_table_for_people(made):
    result = command(made)
    flagged = brute(made, Policy())["MATCH"]
    assert f"{flagged} of {len(made.rows) - 3} that could be looked at are flagged" in result.stdout
    assert "low quality" in result.stdout
    assert f"{made.ids['blank']}: ncii-match bank allow {made.bank} page-5 page-15" in result.stdout
    assert f"{made.ids['copied']}: ncii-match bank show {made.bank} {made.ids['copied']}\n" in result.stdout
    assert "Of 3 pictures nothing is known (CORRUPT, NO_WORKER, TIMED_OUT)" in result.stderr
    assert "is not known here" in result.stderr


def test_no_entry_is_named_when_none_is_asked_for(made):
    result = command(made, "--entries", 0)
    assert "entries flagged something" in result.stdout
    assert "What to look at" not in result.stdout
    assert "commonest" not in result.stdout
    assert "Bits: " not in result.stderr


def test_ctrl_c_ends_it_with_a_sentence(made, monkeypatch):
    def interrupted(*_args, **_more):
        raise KeyboardInterrupt

    monkeypatch.setattr(bank_evaluation, "count_traffic", interrupted)
    with pytest.raises(JobError, match="stopped; nothing was written"):
        command(made)


def test_a_table_of_nothing(made, tmp_path):
    write(tmp_path / "noise", [row for row in made.rows if row[0].startswith("noise-")])
    result = run("evaluate", "bank", made.bank, "--against", tmp_path / "noise")
    assert "0 of 100 that could be looked at are flagged, 0 a million" in result.stdout
    assert "No entry flagged anything" in result.stdout
    write(tmp_path / "failed", [row for row in made.rows if row[0].startswith("failed-")])
    result = run("evaluate", "bank", made.bank, "--against", tmp_path / "failed", code=Exit.UNREADABLE)
    assert "nothing is known" in result.stdout
    for status in (Status.CORRUPT, Status.TIMED_OUT):
        write(tmp_path / status.name, [row for row in made.rows if row[0] == f"failed-{status}"])
        run("evaluate", "bank", made.bank, "--against", tmp_path / status.name, code=Exit.UNREADABLE)


def test_options_change_what_is_asked(made, tmp_path):
    narrow = json.loads(command(made, "--json", "--threshold", "9", "--radius", "20").stdout)
    assert narrow["as_it_is"]["outcomes"] == brute(made, Policy(threshold=9))
    assert len(narrow["thresholds"]) == 21
    (tmp_path / "policy.toml").write_text("threshold = 20\nregions = ['GB']\n[thresholds]\nconfirmed = 5\n")
    own = json.loads(command(made, "--json", "--policy", tmp_path / "policy.toml").stdout)
    wanted = dict.fromkeys(made.entries, 20) | {"confirmed": 5}
    assert own["as_it_is"]["outcomes"] == brute(made, Policy(threshold=20, regions={"GB"}), wanted)
    both = json.loads(command(made, "--json", "--policy", tmp_path / "policy.toml", "--threshold", "9").stdout)
    assert both["as_it_is"]["outcomes"] == brute(made, Policy(threshold=9, regions={"GB"}))
    write(tmp_path / "good", [row for row in made.rows if row[0].startswith("page-")])
    run("evaluate", "bank", made.bank, "--against", tmp_path / "good", code=Exit.OK)


def test_from_pictures_to_figures(tmp_path):
    """What a rescan leaves is what is looked up; a picture from the other side is found, and counts once."""
    bank = bank_of(tmp_path / "bank", seeds=(1, 2))
    media_in = pictures_in(tmp_path / "media", 4, **{"turned.png": mirrored(1), "broken.png": b"no picture"})
    kept = ("--out", tmp_path / "rescan", "--hashes-out", tmp_path / "hashes", "--isolation", "thread")
    run("rescan", media_in, "--bank", bank, *kept, code=Exit.MATCHED)
    decided = json.loads((tmp_path / "rescan" / "summary.json").read_bytes())["outcomes"]
    found = json.loads(
        run("evaluate", "bank", bank, "--against", tmp_path / "hashes", "--json", code=Exit.UNREADABLE).stdout
    )
    outcomes = {name: count for name, count in found["as_it_is"]["outcomes"].items() if count}
    assert outcomes == decided == {"MATCH": 3, "NO_MATCH": 2, "UNREADABLE": 1}
    assert [(one["entry_id"], one["pictures"], one["different"]) for one in found["entries"]] == [(1, 2, 1), (2, 1, 1)]
    assert found["entries"][0]["examples"] == ["00001.png"]


def test_a_bank_of_another_hash_needs_a_threshold(tmp_path):
    bits = np.random.default_rng(3).integers(0, 256, (5, 8), np.uint8)
    with Bank.create(tmp_path / "bank", PHASH) as bank:
        bank.add(Hashes(PHASH, bits[:2]), case="R-1", source="own")
        bank.publish()
    table = pa.Table.from_batches([Hashes(PHASH, bits[1:]).to_arrow().select(["hash"])])
    pq.write_table(table.append_column("id", pa.array(range(4))), tmp_path / "hashes.parquet")
    arguments = ("evaluate", "bank", tmp_path / "bank", "--against", tmp_path / "hashes.parquet")
    with pytest.raises(PolicyError, match="no default threshold"):
        run(*arguments)
    found = json.loads(run(*arguments, "--threshold", "3", "--json").stdout)
    assert (found["algorithm"], found["as_it_is"]["flagged"]) == (str(PHASH), 1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--allow-lists",), "--out DIR"),
        (("--radius", "9"), "is above the radius 9"),
        (("--threshold", "99"), f"above {PDQ_THRESHOLD}, beyond which no bank .* give {PDQ_THRESHOLD} or less"),
        (("--threshold", str(PDQ_THRESHOLD + 1), "--radius", str(PDQ_THRESHOLD)), f"give {PDQ_THRESHOLD} or less"),
        (("--radius", str(PDQ_THRESHOLD + 1)), f"is above {PDQ_THRESHOLD}, the bank's search radius; give less"),
    ],
)
def test_options_that_do_not_fit(made, arguments, said):
    with pytest.raises(InputError, match=said):
        command(made, *arguments)


def test_no_output_among_the_input(made):
    with pytest.raises(InputError, match="choose another place"):
        command(made, "--out", made.hashes / "out")


def test_nothing_sensitive_comes_out_unless_asked_for(made, tmp_path):
    """Neither the hashes, in hexadecimal digits or as they are, nor the cases."""
    out = tmp_path / "out"
    texts = [command(made, "--out", out), command(made, "--json")]
    said = "".join(one.stdout + one.stderr for one in texts).encode()
    table = io.StringIO()
    for row in pq.read_table(out / "entries.parquet").to_pylist():
        table.write(repr(row))
    said += (out / "traffic.json").read_bytes() + (out / "entries.parquet").read_bytes() + table.getvalue().encode()
    packed = [bits for row in made.rows for bits in row[1]] + [*made.entries.values()]
    for bits in packed:
        assert bits.tobytes() not in said
        assert bits.tobytes().hex().encode() not in said.lower()
        assert bits.tobytes().hex()[:12].encode() not in said.lower() or not bits.any()
    assert b"CASE-" not in said
    assert sorted(path.name for path in out.iterdir()) == ["entries.parquet", "traffic.json"]
    asked = command(made, "--cases", "--out", out)
    assert "CASE-twice" in asked.stdout
    assert "CASE-copied" in str(pq.read_table(out / "entries.parquet").column("cases").to_pylist())


def test_the_command_that_it_says_can_be_typed(made, tmp_path):
    """Lists for the allowlist, asked for, and private: what they allow is flagged no more, copies of the entry are."""
    copy = tmp_path / "bank"
    subprocess.run(["cp", "-r", made.bank, copy], check=True)
    arguments = ("evaluate", "bank", copy, "--against", made.hashes, "--json")
    before = json.loads(run(*arguments, "--out", tmp_path / "out", "--allow-lists", code=Exit.UNREADABLE).stdout)
    (blank,) = [one for one in before["entries"] if one["entry_id"] == made.ids["blank"]]
    path = tmp_path / "out" / "allow" / f"entry-{made.ids['blank']}.txt"
    assert len([*path.parent.iterdir()]) == before["advice"]["suggest for the allow list"]
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(path.read_text().splitlines()) == PAGES
    program, *typed = shlex.split(blank["command"])
    assert program == "ncii-match"
    assert typed[typed.index("--radius") + 1] == "4"  # five pages came again, four bits away
    run(*typed)
    after = json.loads(run(*arguments, code=Exit.UNREADABLE).stdout)
    assert after["as_it_is"]["flagged"] == before["as_it_is"]["flagged"] - PAGES - 5
    assert after["on_allow_list"] == before["on_allow_list"] + PAGES + 5
    (left,) = [one for one in after["entries"] if one["entry_id"] == made.ids["blank"]]
    assert (left["pictures"], left["advice"]) == (2, "plausible re-uploads")
    (copied,) = [one for one in before["entries"] if one["entry_id"] == made.ids["copied"]]
    shown = run(*shlex.split(copied["command"])[1:])
    assert "CASE-copied" in shown.stdout


def test_lists_of_an_earlier_run_do_not_stand_beside_its_figures(made, tmp_path):
    """And nothing goes that only looks like one of them."""
    out = tmp_path / "out"
    command(made, "--out", out, "--allow-lists")
    lists = {path.name for path in (out / "allow").iterdir()}
    assert len(lists) > 0
    others = {"entry-7.txt.bak", "entry-x.txt", "entry-.txt", "notes.txt"}
    for name in others:
        (out / "allow" / name).write_text("mine")
    (out / "allow" / "entry-99.txt").mkdir()
    (out / "allow" / "entry-98.txt").write_text("of another bank")
    others.add("entry-99.txt")
    measured(made, out=out, allow_lists=True)
    assert {path.name for path in (out / "allow").iterdir()} == lists | others
    measured(made, out=out)
    assert {path.name for path in (out / "allow").iterdir()} == others


def test_where_nothing_can_be_written_is_said_before_the_work(made, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    monkeypatch.setattr(bank_evaluation, "count_traffic", lambda *_, **__: pytest.fail("the work was begun"))
    for place in (tmp_path / "file", tmp_path / "file" / "deep"):
        with pytest.raises(InputError, match="cannot be written to"):
            command(made, "--out", place)


def test_no_case_is_in_the_text_of_a_firing(rng):
    tally = held(EntryTally((), RADIUS, 15))
    tally.add("a.png", 3, some(1).bits[0])
    (one,) = entry_advice.flagging_entries({7: tally}, Policy(), KNOWN, {})
    assert one.cases == ("R-1",)
    assert "R-1" not in repr(one)


def test_what_is_allowed_never_hides_the_entrys_own_copies(rng):
    """Whatever is within half the threshold of the entry stays outside of what is allowed, however far pages spread."""
    entry = some(1, seed=5).bits[0]
    half = PDQ_THRESHOLD // 2
    tally = held(EntryTally((), RADIUS, half))
    for _ in range(MANY):
        page = flipped(entry, half + 4, rng)
        tally.add("page", half + 4, page)
        tally.add("again", RADIUS, flipped(page, half, rng))
    tally.add("copy", half, flipped(entry, half, rng))
    (one,) = entry_advice.flagging_entries({7: tally}, Policy(), KNOWN, {})
    assert one.advice is Advice.ALLOW_LIST
    assert one.allow_radius == 3
    assert len(one.allowable) == MANY
    for _ in range(20):
        copy = flipped(entry, half, rng)
        assert (np.bitwise_count(tally.hashes[list(one.allowable)] ^ copy).sum(axis=1) > one.allow_radius).all()


def test_odd_names_in_a_command():
    one = entry_advice.FlaggingEntry(
        entry_id=3, pictures=20, different=20, largest=1, near=0, distances=((20, 20),),
        examples=(), allowable=(1, 0, 2), allow_radius=2, state=State.SEED, quality=None, low_quality=False,
        degenerate=False, sources=(), cases=(),
    )  # fmt: skip
    tally = EntryTally((), RADIUS, 15)
    tally.names = ["a b", "-rf", "\x1b[2Jx"]
    text = entry_advice.advised_command(one, tally, "/srv/my bank", None)
    assert shlex.split(text)[:7] == ["ncii-match", "bank", "allow", "/srv/my bank", "./-rf", "a b", "PICTURE"]
    assert shlex.split(text)[8] == "2"
    assert text.isprintable()


def test_memory_does_not_grow_with_the_traffic(rng):
    """Ten times the pictures, nothing more: what is kept is kept for each entry that fires."""
    bits = some(300, seed=2).bits
    kept = []
    for n in (1, 300, 3000):
        tracemalloc.start()
        tally = EntryTally((), RADIUS, 15)
        for k in range(n):
            tally.add(f"{k:08}", 16 + k % 15, bits[k % len(bits)])
        kept.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
    assert tally.by_distance.sum() == 3000
    assert kept[0] < 2_000
    assert kept[2] < kept[1] + 1_000 < 14_000
