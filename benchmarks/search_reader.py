"""One of several processes that share a saved index; ``search_files.sharing`` starts them.

python benchmarks/search_reader.py DIRECTORY QUERIES.npy
"""

import json
import re
import sys
from pathlib import Path
from statistics import median
from time import perf_counter

SEARCHES = 2000
"""Before memory is looked at: enough to have touched every page of a large index."""


def memory() -> dict[str, int]:
    """Bytes that this process accounts for: a page that several have mapped is shared out among them (Pss)."""
    rollup = Path("/proc/self/smaps_rollup").read_text()
    sizes = dict(re.findall(r"^(Pss|Pss_Anon|Pss_File|Rss):\s+(\d+) kB$", rollup, re.MULTILINE))
    return {name: 1024 * int(kilobytes) for name, kilobytes in sizes.items()}


def main() -> None:
    """Import, open, search; say what it took; wait to be asked; say what memory it is; wait to be let go."""
    directory, path = sys.argv[1:]
    start = perf_counter()
    import ncii_match as nm
    from ncii_match.index.engines import mih  # noqa: F401 - with its kernels, so that opening is timed alone

    imported, before = perf_counter() - start, memory()["Pss"]
    start = perf_counter()
    index = nm.open_index(directory)
    opened = perf_counter() - start
    import numpy as np

    bits = np.load(path)
    batches = [nm.Hashes(nm.PDQ, bits[row : row + 1]) for row in range(len(bits))]
    times = []
    for number in range(SEARCHES):
        start = perf_counter()
        index.search(batches[number % len(batches)])
        times.append(perf_counter() - start)
    times_taken = {"import": imported, "open": opened, "first": times[0], "next": median(times[1:100])}
    print(json.dumps({**times_taken, "last": median(times[-100:]), "pss_before": before}), flush=True)
    sys.stdin.readline()
    print(json.dumps(memory()), flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    main()
