"""The table that compares commits counts what it says, in a small tree with one of everything."""

import ast
import sys

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
import house_table


@pytest.fixture
def tree(tmp_path):
    """A package with a circle, a class name used twice, and four empty names."""
    files = {
        "package/__init__.py": "",
        "package/a.py": "from package import b\nfrom package.sub import c\n\nclass Work:\n    pass\n\none = 1\n",
        "package/b.py": "def run(found):\n    from package import a\n    a.kept = found\n",
        "package/sub/__init__.py": "class Work:\n    pass\n",
        "package/sub/c.py": "if TYPE_CHECKING:\n    from package import a\n_One = 2\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_names_classes_and_circles_are_counted(tree):
    package = house_table.sources(tree, "package")
    assert house_table.count_empty(package) == 4
    assert house_table.repeated_classes(package) == 1
    graph = house_table.imports(tree, package)
    assert graph["package.a"] == {"package.b", "package.sub.c"}
    assert graph["package.sub.c"] == set()
    assert house_table.circles(graph) == 1
    assert house_table.circles(house_table.rooms(graph)) == 1
    assert house_table.circles({**graph, "package.b": set()}) == 0


@pytest.mark.parametrize("name", ["one", "_found", "PLACES", "held_"])
def test_empty_names_are_known_in_any_case(name):
    assert house_table.is_empty(name)
    assert not house_table.is_empty(f"{name}_row")


def test_every_way_to_bind_a_name_counts():
    source = (
        "import a as one\nfor found in x: pass\ndef said(kept, *, made): pass\nmatch x:\n case [told, *held]: pass\n"
    )
    assert sum(map(house_table.is_empty, house_table.bound_names(ast.parse(source)))) == 7


def test_prose_is_what_is_neither_table_nor_code():
    assert house_table.prose("a b\n\n| c |\n\n```sh\nd e\n```\n<!-- f -->\n").split() == ["a", "b"]
