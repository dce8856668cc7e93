"""Print a Markdown table that compares how easily two or more commits can be read: names, circles, sizes.

python scripts/house_table.py [COMMIT …]      default: before the house was put in order, before this table, and now
"""

import argparse
import ast
import io
import re
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

DEFAULT_COMMITS = ("0e56fb0", "2d4feca", "HEAD")

EMPTY_NAMES = {"one", "ones", "found", "said", "kept", "made", "told", "held", "place", "places", "thing", "things"}
"""Names that say nothing of what they are bound to."""

GENERATED = ("docs/reference.md", "docs/cli.md")
"""Pages that nobody writes."""


def bound_names(tree: ast.AST) -> Iterator[str]:
    """Every name that is bound: variables, arguments, functions, classes, attributes that are set, aliases."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()) | ast.arg(arg=name):
                yield name
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)) | ast.alias(asname=str(name)):
                yield name


def is_empty(name: str) -> bool:
    """Whether a name says nothing, whatever its case and underscores."""
    return name.strip("_").lower() in EMPTY_NAMES


def sources(root: Path, folder: str) -> dict[Path, ast.Module]:
    """The Python files below a folder, parsed."""
    return {path: ast.parse(path.read_bytes()) for path in sorted((root / folder).rglob("*.py"))}


def count_empty(trees: dict[Path, ast.Module]) -> int:
    """Bindings of empty names."""
    return sum(is_empty(name) for tree in trees.values() for name in bound_names(tree))


def repeated_classes(trees: dict[Path, ast.Module]) -> int:
    """Class names that more than one class has."""
    names = Counter(node.name for tree in trees.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
    return sum(count > 1 for count in names.values())


def imports(root: Path, trees: dict[Path, ast.Module]) -> dict[str, set[str]]:
    """By module, the modules of the package that it imports anywhere but for type checkers."""
    modules = {}
    for path, tree in trees.items():
        parts = path.relative_to(root).with_suffix("").parts
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = tree
    graph: dict[str, set[str]] = {name: set() for name in modules}
    for name, tree in modules.items():
        for node in _run_statements(tree):
            targets: list[str] = []
            if isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                full = [f"{node.module}.{alias.name}" for alias in node.names]
                targets = [target if target in modules else node.module for target in full]
            graph[name].update(target for target in targets if target in modules and target != name)
    return graph


def _run_statements(node: ast.AST) -> Iterator[ast.AST]:
    """Every node but those below ``if TYPE_CHECKING``."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING":
            continue
        yield child
        yield from _run_statements(child)


def circles(graph: dict[str, set[str]]) -> int:
    """Groups of modules that import each other, directly or by way of others."""
    reached = {name: _reached(graph, name) for name in graph}
    groups = {
        frozenset(other for other in reached[name] if name in reached[other]) for name in graph if name in reached[name]
    }
    return len(groups)


def _reached(graph: dict[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    waiting = [*graph[start]]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += graph[name]
    return seen


def rooms(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """The same graph between the packages and modules right below the top; the public facade left out."""
    merged: dict[str, set[str]] = {}
    for name, targets in graph.items():
        if "." in name:
            room = name.split(".")[1]
            merged.setdefault(room, set()).update(
                target.split(".")[1] for target in targets if "." in target and target.split(".")[1] != room
            )
    return merged


def public_names(root: Path) -> int:
    """Names of ``ncii_match.__all__``, the version left out."""
    script = "import ncii_match; print(len(set(ncii_match.__all__) - {'__version__'}))"
    result = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True)
    return int(result.stdout)


def pages(root: Path) -> dict[str, str]:
    """README and the pages below docs/, by name."""
    paths = [root / "README.md", *(root / "docs").rglob("*.md")]
    return {str(path.relative_to(root)): path.read_text(encoding="utf-8") for path in paths}


def prose(text: str) -> str:
    """A page without tables and code."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return "\n".join(line for line in text.splitlines() if not line.startswith(("|", "<!--")))


def count_lines(trees: dict[Path, ast.Module]) -> int:
    """Lines of these files."""
    return sum(len(path.read_bytes().splitlines()) for path in trees)


def measure(root: Path) -> dict[str, int]:
    """Every row of the table for one tree."""
    package, tests, benchmarks = (sources(root, folder) for folder in ("ncii_match", "tests", "benchmarks"))
    scripts = sources(root, "scripts") if (root / "scripts").exists() else {}
    graph = imports(root, package)
    texts = pages(root)
    written = {name: text for name, text in texts.items() if name not in GENERATED}
    return {
        "bindings of empty names, package": count_empty(package),
        "bindings of empty names, benchmarks and scripts": count_empty(benchmarks) + count_empty(scripts),
        "class names used twice, package": repeated_classes(package),
        "import circles between modules": circles(graph),
        "import circles between packages": circles(rooms(graph)),
        "public names": public_names(root),
        "words of README and docs": sum(len(text.split()) for text in texts.values()),
        "… without generated pages": sum(len(text.split()) for text in written.values()),
        "… and without tables and code": sum(len(prose(text).split()) for text in written.values()),
        "modules of bank/": len(sources(root, "ncii_match/bank")),
        "modules of the package": len(package),
        "lines of the package": count_lines(package),
        "lines of tests": count_lines(tests),
        "lines of benchmarks": count_lines(benchmarks),
    }


def measure_commit(commit: str) -> dict[str, int]:
    """The rows for a commit. Raises CalledProcessError when git does not know it."""
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, check=True, capture_output=True).stdout
    with tempfile.TemporaryDirectory() as folder, tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(folder, filter="data")
        return measure(Path(folder))


def name_of(commit: str) -> str:
    """Short hash and date."""
    command = ["git", "show", "-s", "--format=%h, %cs", commit]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commits", nargs="*", default=DEFAULT_COMMITS, metavar="COMMIT", help="oldest first")
    commits = parser.parse_args().commits
    columns = [measure_commit(commit) for commit in commits]
    print(f"| | {' | '.join(map(name_of, commits))} |\n|---|{'---:|' * len(commits)}")
    for label in columns[0]:
        print(f"| {label} | {' | '.join(f'{column[label]:,}' for column in columns)} |")


if __name__ == "__main__":
    main()
