"""Write the tables of the pages of figures from the newest raw results. People write the text around them.

python benchmarks/report.py [--check]     --check writes nothing and fails when a page is not what it should be
"""

import argparse
import sys
from collections.abc import Callable

import bank_tables
import hashing_tables
import record
import search_tables
import tables
import threshold_tables

PAGES: dict[str, tuple[tuple[str, ...], Callable[..., dict[str, str]]]] = {
    "performance.md": (("hashing",), hashing_tables.performance),
    "accuracy.md": (("accuracy",), hashing_tables.accuracy),
    "search.md": (("search", "costs"), search_tables.search),
    "bank-figures.md": (("bank", "opening"), bank_tables.bank),
    "check-figures.md": (("checks", "swaps", "killers"), bank_tables.uploads),
    "rescan-figures.md": (("rescan",), bank_tables.rescans),
    "threshold-figures.md": (("thresholds", "pairs", "noise"), threshold_tables.thresholds),
}
"""By page: the kinds of run that its tables are made from, and what makes them."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only say whether the pages are up to date")
    only_check = parser.parse_args().check
    stale = []
    for name, (kinds, make) in PAGES.items():
        path = record.ROOT / "docs" / name
        page = path.read_text()
        current = tables.fill(page, make(*map(record.newest, kinds)))
        if page != current:
            stale.append(f"docs/{name}")
            if not only_check:
                path.write_text(current)
    if only_check and stale:
        sys.exit(f"{', '.join(stale)}: not what the newest figures say; run: python benchmarks/report.py")


if __name__ == "__main__":
    try:
        main()
    except (FileNotFoundError, ValueError) as error:
        sys.exit(str(error))
