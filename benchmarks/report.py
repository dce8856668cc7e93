"""Write docs/performance.md and docs/accuracy.md from the newest raw figures. Every number in them comes from there.

python benchmarks/report.py [--check]     --check writes nothing and fails when a page is not what it should be
"""

import argparse
import sys

import accuracy_page
import performance_page
import record

PAGES = {"performance.md": ("hashing", performance_page.text), "accuracy.md": ("accuracy", accuracy_page.text)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only say whether the pages are up to date")
    check = parser.parse_args().check
    stale = []
    for name, (kind, text) in PAGES.items():
        path, wanted = record.ROOT / "docs" / name, text(record.newest(kind))
        if not check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(wanted)
        elif not path.exists() or path.read_text() != wanted:
            stale.append(f"docs/{name}")
    if stale:
        sys.exit(f"{' and '.join(stale)} is not what the newest figures say; run: python benchmarks/report.py")


if __name__ == "__main__":
    try:
        main()
    except FileNotFoundError as error:
        sys.exit(str(error))
