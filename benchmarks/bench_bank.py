"""How long the bank's operations take, and what they cost on disk and in memory.

python benchmarks/bench_bank.py [--quick] [--entries 10M]    measures; keeps every sample in benchmarks/results/
pytest benchmarks --benchmark-disable                        does it all on a small bank; never asserts a time

At 10M it needs some 12 GB of disk below --place (the system's directory for temporary files) and 6 GB of memory.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import record

from ncii_match import PDQ, Bank, Hashes, Snapshot
from ncii_match.bank.truth.degenerate_hashes import degenerate

LARGE, SMALL, TINY = 10_000_000, 100_000, 3_000
PER_CASE = 4
CHANGED = 1_000
ROUNDS = 7
FORMATS = ("parquet", "text")

Row = dict[str, Any]


def hashes_of(n: int, seed: int) -> Hashes:
    """Random hashes, but for the few that no bank takes."""
    bits = np.random.default_rng(seed).integers(0, 256, (n + n // 1000 + 20, PDQ.nbytes), np.uint8)
    hashes = Hashes(PDQ, bits, np.full(len(bits), 90, np.uint8))
    return hashes[np.flatnonzero(~degenerate(hashes))[:n]]


def write(path: Path, hashes: Hashes, kind: str) -> None:
    """A file to import: for Parquet with four hashes a case, for text a plain list."""
    if kind == "text":
        with path.open("w") as file:
            for first in range(0, len(hashes), 1 << 16):
                file.writelines(f"{text},90\n" for text in hashes[first : first + (1 << 16)].to_hex())
        return
    schema = pa.schema([("hash", pa.binary(PDQ.nbytes)), ("quality", pa.uint8()), ("case", pa.string())])
    with pq.ParquetWriter(path, schema) as writer:
        for first in range(0, len(hashes), 1 << 16):
            batch = hashes[first : first + (1 << 16)]
            packed = pa.FixedSizeBinaryArray.from_buffers(
                schema.field("hash").type, len(batch), [None, pa.py_buffer(batch.bits)]
            )
            cases = [f"{(first + row) // PER_CASE:012x}-2026" for row in range(len(batch))]
            writer.write_batch(pa.record_batch([packed, pa.array(batch.quality), pa.array(cases)], schema=schema))


def import_in_process(bank: Path, file: Path) -> Row:
    """Import in a process of its own, so that its memory is its own."""
    command = [sys.executable, __file__, "--import", str(bank), str(file)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    added, seconds, peak, before = printed.split()
    return {"added": int(added), "seconds": float(seconds), "peak_bytes": int(peak), "idle_bytes": int(before)}


def _most_memory() -> int:
    """Bytes that this process has held at its largest; what getrusage says begins with the parent's."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return 1024 * int(line.split()[1])


def _import(bank: Path, file: Path) -> None:
    before = _most_memory()
    with Bank.open(bank) as opened:
        start = time.perf_counter()
        done = opened.import_file(file, case="list", source="bench", cap=None)
        seconds = time.perf_counter() - start
    print(done.added, seconds, _most_memory(), before)


def timed(action: Callable[[], Any]) -> float:
    """Seconds it takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def rounds(bank: Bank, n: int, changed: int, number: int) -> Iterator[Row]:
    """Some hashes added and published; then their case withdrawn and published, while a reader looks for one."""
    for turn in range(number):
        new = hashes_of(changed, 1000 + turn)
        adding = timed(lambda new=new, turn=turn: bank.add(new, case=f"turn-{turn}", source="bench", cap=None))
        publishing = timed(bank.publish)
        command = [sys.executable, str(Path(__file__).with_name("bank_reader.py")), str(bank.path), new[:1].to_hex()[0]]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as reader:
            assert reader.stdout is not None
            reader.stdout.readline()
            start = time.time()
            withdrawing = timed(lambda turn=turn: bank.withdraw(case=f"turn-{turn}", reason="bench"))
            removing = timed(bank.publish)
            stopped = float(reader.stdout.readline()) - start
        yield {
            "figure": "change", "entries": n, "changed": changed, "add": adding, "publish_added": publishing,
            "withdraw": withdrawing, "publish_withdrawn": removing, "reader_stops": stopped,
        }  # fmt: skip


def opening(bank_directory: Path, n: int, number: int) -> Row:
    """From a closed snapshot to the first answer, files in the page cache."""
    query = hashes_of(1, 5)
    opened, answered = [], []
    for _ in range(number):
        start = time.perf_counter()
        snapshot = Snapshot.open(bank_directory)
        opened.append(time.perf_counter() - start)
        snapshot.index.search(query, 31)
        answered.append(time.perf_counter() - start)
    verified = timed(lambda: Snapshot.open(bank_directory, verify=True))
    return {"figure": "open", "entries": n, "open": opened, "first_answer": answered, "verify_snapshot": verified}


def measure(n: int, folder: Path, number: int, key: bytes | None = None) -> Iterator[Row]:
    """Every row for a bank of n hashes below a directory."""
    hashes = hashes_of(n, 1)
    for kind in FORMATS:
        file, where = folder / f"hashes.{'parquet' if kind == 'parquet' else 'txt'}", folder / kind
        write(file, hashes, kind)
        Bank.create(where, key=key).close()
        row = {"figure": "import", "entries": n, "format": kind, "bytes_read": file.stat().st_size}
        yield row | import_in_process(where, file)
        if kind != FORMATS[0]:
            shutil.rmtree(where)
        else:
            again = import_in_process(where, file)
            yield {"figure": "import_again", "entries": n, "format": kind, **again}
        file.unlink()
    del hashes
    with Bank.open(folder / FORMATS[0], key=key) as bank:
        yield {"figure": "publish_full", "entries": n, "seconds": timed(lambda: bank.publish(full=True, workers=2))}
        sizes = bank.stats()["bytes"]
        yield {"figure": "sizes", "entries": n, **sizes}
        yield opening(bank.path, n, 3 * number)
        yield from rounds(bank, n, min(CHANGED, n // 3), number)
        yield opening(bank.path, n, 3 * number) | {"figure": "open_with_delta"}
        yield {"figure": "verify_bank", "entries": n, "seconds": timed(lambda: _sound(bank))}
        bank.withdraw(case=f"{0:012x}-2026", reason="bench")
        yield {"figure": "compact", "entries": n, "seconds": timed(lambda: bank.compact(workers=2))}


def _sound(bank: Bank) -> None:
    faults = bank.verify()
    if faults:
        raise AssertionError(faults)


def test_every_operation_runs(tmp_path: Path) -> None:
    rows = [*measure(TINY, tmp_path, 1)]
    assert {row["figure"] for row in rows} == {  # each is on the page
        "import", "import_again", "publish_full", "sizes", "open", "change", "open_with_delta", "verify_bank",
        "compact",
    }  # fmt: skip
    assert [row["added"] for row in rows if row["figure"] == "import"] == [TINY, TINY]
    assert [row["added"] for row in rows if row["figure"] == "import_again"] == [0]


@pytest.mark.parametrize(("text", "size"), [("10M", 10_000_000), ("5k", 5_000), ("300", 300)])
def test_sizes_are_read(text: str, size: int) -> None:
    assert size_of(text) == size


def size_of(text: str) -> int:
    scale = {"k": 1_000, "M": 1_000_000}.get(text[-1:], 1)
    return int(text.rstrip("kM")) * scale


def describe(row: Row) -> str:
    """One line of what was measured."""
    return ", ".join(f"{name} {value}" for name, value in row.items() if not isinstance(value, list))


def main() -> None:
    parser = record.parser(__doc__, "a small bank")
    parser.add_argument("--entries", type=size_of, metavar="N", help="hashes in the bank, like 10M (the default)")
    parser.add_argument("--place", help="where to put the bank meanwhile")
    parser.add_argument("--import", nargs=2, dest="import_", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.import_:
        _import(*map(Path, options.import_))
        return
    with tempfile.TemporaryDirectory(dir=options.place) as folder:
        rows = measure(options.entries or (SMALL if options.quick else LARGE), Path(folder), ROUNDS)
        record.run("bank", options.quick, rows, describe)


if __name__ == "__main__":
    main()
