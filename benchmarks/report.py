"""Write the pages of measured figures, and the picture of one of them, from the newest raw figures.

Every number in them comes from there, or is computed by the package. Drawing the picture needs Matplotlib.

python benchmarks/report.py [--check]     --check writes nothing and fails when a page is not what it should be
"""

import argparse
import sys
from collections.abc import Callable

import accuracy_page
import bank_page
import performance_page
import record
import rescan_page
import search_page
import search_picture
import thresholds_page
import uploads_page

PAGES: dict[str, tuple[tuple[str, ...], Callable[..., str]]] = {
    "performance.md": (("hashing",), performance_page.text),
    "accuracy.md": (("accuracy", "thresholds"), accuracy_page.text),
    "search.md": (("search",), search_page.text),
    "bank-figures.md": (("bank",), bank_page.text),
    "check-figures.md": (("checks", "swaps", "killers"), uploads_page.text),
    "rescan-figures.md": (("rescan",), rescan_page.text),
    "threshold-figures.md": (("thresholds", "pairs", "noise"), thresholds_page.text),
}
"""By page: the kinds of run that it is made from, and what makes it."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only say whether the pages are up to date")
    check = parser.parse_args().check
    stale = []
    for name, (kinds, text) in PAGES.items():
        path, wanted = record.ROOT / "docs" / name, text(*map(record.newest, kinds))
        if not check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(wanted)
        elif not path.exists() or path.read_text() != wanted:
            stale.append(f"docs/{name}")
    picture, run = record.ROOT / "docs" / search_picture.NAME, record.newest("search")
    if not search_picture.current(picture, run):
        stale.append(f"docs/{search_picture.NAME}")
        if not check:
            picture.parent.mkdir(exist_ok=True)
            picture.write_text(search_picture.draw(run))
    if check and stale:
        sys.exit(f"{' and '.join(stale)} is not what the newest figures say; run: python benchmarks/report.py")


if __name__ == "__main__":
    try:
        main()
    except FileNotFoundError as error:
        sys.exit(str(error))
