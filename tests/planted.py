"""An experiment whose rows are made up, so that everything occurs in it that figures must tell apart.

Distances on the threshold and beside it, qualities on the least one and beside it, qualities that are not known, copies
without a hash, pictures that cannot be read, groups of several sizes, and witnesses that agree, contradict and are
silent about pairs within the threshold.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
from evaluations import GROUPS, PLAN
from pyarrow import parquet as pq

from ncii_match import Status, Views
from ncii_match.evaluate.experiment import Experiment
from ncii_match.evaluate.trials import NO_DISTANCE, UNALTERED
from ncii_match.jobs.stored_rows import Chunks
from ncii_match.values import UNKNOWN_QUALITY

THRESHOLD, QUALITY = 60, 40

VIEWS, WITNESS_VIEWS = len(Views.ALL), len(Views.BORDERS)

CHUNK = 7

GROUP_SIZES = (1, 1, 2, 3, 1, 4, 1, 2, 1, 1, 5, 1, 2, 1, 1, 3, *(1, 2) * 12)

KINDS = ("photograph", "text-like", "flat", "low quality")

FAR = (0, 2, 10, 58, 59, 60, 60, 61, 62, 90)
"""Bits of copies from their originals."""

NEAR = (41, 59, 60, 60, 61, 78, 78, 78, 79, 95, 96, 97)
"""Bits between planted pictures of different groups."""

AGREE = (0, 5, 6, 7, 10, 11, 14, 15, 18, 19)
"""Bits of the witness: on its thresholds and beside them."""


class Names:
    """Pictures of which there are only names."""

    contents, fingerprint, opened = "path", "0", None

    def __init__(self, names):
        self._names, self.rows = names, len(names)

    def ids(self):
        return pa.array(self._names)

    def read(self, first, last):
        return pa.RecordBatch.from_pydict({"id": self._names[first:last], "path": self._names[first:last]})


def flipped(chance, packed, bits):
    """A hash that is so many bits away."""
    mask = np.zeros(packed.size * 8, np.uint8)
    mask[chance.choice(mask.size, bits, replace=False)] = 1
    return packed ^ np.packbits(mask)


def noise(chance, nbytes):
    """A hash of as many ones as zeros: never all zero."""
    return flipped(chance, np.zeros(nbytes, np.uint8), 4 * nbytes)


def uploads_of(chance, name, kind, labels):
    """One picture and its copies: hashes of every view, far from all others but for the copy's one view."""
    base, second = noise(chance, 32), noise(chance, 8)
    if chance.random() < 0.2:  # so few ones that a witness that is silent, all zero, would be near
        second = flipped(chance, np.zeros(8, np.uint8), 5)
    trimmed = chance.random() < 0.4
    made = []
    for label in labels:
        bits = np.array([noise(chance, 32) for _ in range(VIEWS)])
        theirs = np.array([noise(chance, 8) for _ in range(WITNESS_VIEWS)])
        status = np.where(chance.random(VIEWS) < 0.05, Status.TOO_SMALL, Status.OK).astype(np.uint8)
        if not trimmed:
            status[16:] = Status.NO_BORDER
        quality = np.full(VIEWS, chance.choice([0, 10, 39, 40, 41, 69, 100, 100, 100]), np.uint8)
        odd = chance.random(VIEWS) < 0.2
        quality[odd] = chance.choice([5, 39, 40, 100], int(odd.sum()))
        if chance.random() < 0.1:
            quality[chance.random(VIEWS) < 0.5] = UNKNOWN_QUALITY
        if label == UNALTERED:
            bits[0], theirs[0], status[0] = base, second, Status.OK
        else:
            view = int(chance.choice([0, 0, 1, 9, 16, 24]))
            bits[view] = flipped(chance, base, int(chance.choice(FAR)))
            theirs[int(chance.integers(WITNESS_VIEWS))] = flipped(chance, second, int(chance.choice(AGREE)))
            if chance.random() < 0.06:
                status[:] = Status.TOO_SMALL
            elif chance.random() < 0.06:
                quality[:] = 20
        theirs[1:][chance.random(WITNESS_VIEWS - 1) < 0.3] = 0
        made.append({"id": name, "group": name.partition("@")[0], "stratum": kind, "step": label, "bits": bits,
                     "theirs": theirs, "status": status, "quality": quality})  # fmt: skip
    return made


def write(out: Path) -> Path:
    """The experiment, as if it were finished."""
    chance = np.random.default_rng(11)
    labels = (UNALTERED, *(step.label for step in PLAN.steps))
    pictures = []
    for number, size in enumerate(GROUP_SIZES):
        for k in range(size):
            kind = KINDS[int(chance.choice(4, p=[0.5, 0.2, 0.1, 0.2]))]
            shorter = labels[: int(chance.choice([1, 3, 6, 6, 6, 6, 6, 6]))]  # too small, or too long for WebP
            pictures.append(uploads_of(chance, f"g{number:02}@{k}", kind, shorter))
    every = [row for rows in pictures for row in rows]
    for bits in NEAR * 20:
        upload, entry = every[int(chance.integers(len(every)))], pictures[int(chance.integers(len(pictures)))][0]
        if upload["group"] != entry["group"]:
            view = int(chance.choice([2, 3, 10, 17]))
            upload["bits"][view] = flipped(chance, entry["bits"][0], bits)
            upload["status"][view], upload["quality"][view] = Status.OK, chance.choice([39, 40, 100, 100, 255])
            if chance.random() < 0.6:
                upload["theirs"][1] = flipped(chance, entry["theirs"][0], int(chance.choice(AGREE)))
    for bits in NEAR * 20:
        one, two = (every[int(chance.integers(len(every)))] for _ in range(2))
        if one["group"] != two["group"] and two["step"] != UNALTERED:
            two["bits"][0] = flipped(chance, one["bits"][0], bits)
            two["status"][0] = Status.OK
    for rows in pictures:  # two steps of which all that is missed could not be compared, for different reasons
        for row in rows:
            if row["step"] in (labels[2], labels[5]):
                row["bits"][0], row["status"][0] = (
                    flipped(chance, rows[0]["bits"][0], int(chance.choice([0, 9, 60]))),
                    0,
                )
                row["quality"][:] = 100
                if chance.random() < 0.2:
                    row["status" if row["step"] == labels[2] else "quality"][:] = Status.TOO_SMALL
    pictures[-1][0]["status"][0] = Status.TOO_SMALL  # an original that a bank cannot hold
    for name, status in (("h00@0", Status.CORRUPT), ("h01@0", Status.TRUNCATED), ("h02@0", Status.CORRUPT)):
        nothing = uploads_of(chance, name, "", (UNALTERED,))[0]
        nothing["status"][:] = status
        nothing["theirs"][:] = 0
        pictures.append([nothing])
    names = [rows[0]["id"] for rows in pictures]
    experiment = Experiment(out, Chunks(Names(names), CHUNK), PLAN, groups=GROUPS)
    steps = {step.label: step for step in PLAN.steps}
    for first in range(0, len(pictures), CHUNK):
        rows = [finished(row, rows[0], steps) for rows in pictures[first : first + CHUNK] for row in rows]
        table = pa.Table.from_pylist(rows, PLAN.schema())
        pq.write_table(table, out / "trials" / f"{first // CHUNK:08}.parquet", write_page_checksum=True)
    assert experiment.rows == len(pictures)
    return out


def finished(row, original, steps):
    """As it stands in the file, with the distances from the original."""
    there = row["status"] == Status.OK
    row["bits"][~there], row["quality"][~there] = 0, UNKNOWN_QUALITY
    apart = np.bitwise_count(row["bits"] ^ original["bits"][0]).sum(1).astype(int)
    apart[~there] = NO_DISTANCE
    if original["status"][0] != Status.OK:
        apart[:] = NO_DISTANCE
    theirs = np.bitwise_count(row["theirs"] ^ original["theirs"][0]).sum(1).astype(int)
    theirs[~row["theirs"].any(1)] = NO_DISTANCE
    step = steps.get(row["step"])
    return {
        "id": row["id"], "group": row["group"], "stratum": row["stratum"], "step": row["step"],
        "transform": "" if step is None else step.transform_name, "strength": None if step is None else step.strength,
        "hashes": row["bits"].tobytes(), "qualities": row["quality"].tobytes(), "statuses": row["status"].tobytes(),
        "distances": apart.tolist(), "witness_hashes": row["theirs"].tobytes(), "witness_distances": theirs.tolist(),
    }  # fmt: skip
