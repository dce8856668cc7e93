"""How long opening a published bank takes: without a trusted key, with one for the first time, and again.

python benchmarks/bench_opening.py [--quick] [--entries 10M]    measures; keeps every sample in benchmarks/results/
pytest benchmarks --benchmark-disable                           does it all on a small bank; never asserts a time

The bank has no history: its base is written as a publication writes it, of random hashes, four to a case. At 10M it
needs some 4 GB of disk below --place (the system's directory for temporary files), the cache included, and 4 GB of
memory. Files are in the page cache, as they are after they were copied to a machine.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import record
from bench_bank import LARGE, PER_CASE, SMALL, TINY, describe, hashes_of, size_of, timed

from ncii_match import Bank, Snapshot
from ncii_match.bank.crypto import signatures
from ncii_match.bank.snapshots import active_entries
from ncii_match.bank.snapshots.segment import Segment

ROUNDS = 5

Row = dict[str, Any]


def written(folder: Path, n: int) -> Path:
    """A signed bank of n entries, and beside it the key to trust."""
    private, trusted = signatures.make_signing_keys(folder)
    cases = -(-n // PER_CASE)
    lines = [b'{"reference": "%012x-2026", "source": "bench"}\n' % case for case in range(cases)]
    whole = Segment(
        np.arange(1, n + 1), hashes_of(n, 1).bits, np.arange(n + 1), (np.arange(n) // PER_CASE).astype(np.uint32),
        np.zeros(n, np.uint8), np.zeros(n, np.int64), np.arange(cases + 1) * len(lines[0]),
        np.frombuffer(b"".join(lines), np.uint8),
    )  # fmt: skip
    with (
        mock.patch.object(active_entries, "read_active_entries", return_value=whole),
        Bank.create(folder / "bank") as bank,
    ):
        bank.publish(signing_key=private, workers=2)
    return trusted


def measure(n: int, folder: Path, rounds: int) -> Iterator[Row]:
    """Every row for a bank of n hashes below a directory. Ways of opening alternate."""
    trusted, bank, query = written(folder, n), folder / "bank", hashes_of(1, 5)
    files = sum(file.stat().st_size for file in (bank / "bases").rglob("*") if file.is_file())
    yield {"figure": "size", "entries": n, "bytes": files}
    for turn in range(rounds):
        cache = folder / f"cache-{turn}"

        def opened(cache: Path = cache, **how: Any) -> None:
            Snapshot.open(bank, cache=cache, **how).index.search(query, 0)

        yield {
            "figure": "open",
            "entries": n,
            "no_key": timed(opened),
            "first": timed(lambda: opened(trusted_key=trusted)),
            "again": timed(lambda: opened(trusted_key=trusted)),
            "no_key_again": timed(opened),
            "digests_in_place": timed(lambda: opened(verify=True)),
        }
        for path in sorted(cache.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()


def test_every_way_of_opening_runs(tmp_path: Path) -> None:
    rows = [*measure(TINY, tmp_path, 1)]
    assert [row["figure"] for row in rows] == ["size", "open"]
    assert all(rows[1][name] > 0 for name in ("no_key", "first", "again", "digests_in_place"))


def main() -> None:
    parser = record.parser(__doc__, "a small bank")
    parser.add_argument("--entries", type=size_of, metavar="N", help="hashes in the bank, like 10M (the default)")
    parser.add_argument("--place", help="where to put the bank meanwhile")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.place) as folder:
        rows = measure(options.entries or (SMALL if options.quick else LARGE), Path(folder), ROUNDS)
        record.run("opening", options.quick, rows, describe)


if __name__ == "__main__":
    main()
