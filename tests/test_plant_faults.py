"""The script that plants faults: what it changes, that it leaves the tree alone, and that it goes on where it ended."""

import ast
import importlib.util
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

SOURCE = '''"""Not this: 1 < 2."""
LIMIT: int = 3


def judge(a, b):
    """Nor this."""
    if a < b and not b == LIMIT:
        raise ValueError(f"{a > b}")
    for each in range(2):
        if each is None:
            continue
        break
    return max(a, b) if a in (1, b) else pow(a, b)
'''


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("plant_faults", ROOT / "scripts" / "plant_faults.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["plant_faults"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["plant_faults"]


def test_every_kind_of_fault_is_planted_once_each(script):
    faults = script.faults_in("m.py", SOURCE)
    assert {fault.kind for fault in faults} == {
        "comparison", "and/or", "not", "constant", "min/max", "arguments", "condition", "raise", "continue", "break",
        "return",
    }  # fmt: skip
    assert len({fault.key for fault in faults}) == len(faults)
    planted = {fault.planted(SOURCE.encode()).decode() for fault in faults}
    assert len(planted) == len(faults)
    for text in planted:
        assert ast.dump(ast.parse(text)) != ast.dump(ast.parse(SOURCE))
        assert text.startswith('"""Not this: 1 < 2."""')
        assert '"""Nor this."""' in text
    for wanted in (
        "if (a <= b) and not b == LIMIT", "if (a < b or not b == LIMIT)", "and (b == LIMIT)", "LIMIT: int = (4)",
        "(min(a, b))", "(pow(b, a))", "        pass\n    for each", "            pass\n        break", "    pass\n",
        "(each is not None)", "(a not in (1, b))", "range((1))", "(not ((a < b and (not b == LIMIT))))",
    ):  # fmt: skip
        assert any(wanted in text for text in planted), wanted


def test_text_beyond_ascii_is_cut_at_the_right_place(script):
    source = 'x = "ü" if 1 < len("é") else "日"\n'
    (boundary,) = [fault for fault in script.faults_in("m.py", source) if fault.kind == "comparison"]
    assert boundary.planted(source.encode()).decode() == 'x = "ü" if (1 <= len(\'é\')) else "日"\n'


def test_every_target_is_there(script):
    for modules, tests in script.TARGETS.values():
        assert all((ROOT / module).is_file() for module in modules)
        assert all((ROOT / "tests" / test).is_file() for test in tests)
    assert script.choose(ROOT, ["policy"], 5, 1) == script.choose(ROOT, ["policy"], 5, 1)
    assert script.choose(ROOT, ["policy"], 5, 1) != script.choose(ROOT, ["policy"], 5, 2)


@pytest.fixture
def project(tmp_path):
    """A tree with a module of one comparison and a test that does not look at its boundary."""
    (tmp_path / "tree" / "tests").mkdir(parents=True)
    (tmp_path / "tree" / "m.py").write_text("def judge(a):\n    return a < 3\n")
    (tmp_path / "tree" / "tests" / "test_m.py").write_text(
        "from m import judge\n\n\ndef test_it():\n    assert judge(1) is True\n    assert judge(9) is False\n"
    )
    return tmp_path / "tree"


def test_a_campaign_finds_what_survives_and_goes_on(script, project, tmp_path, capsys):
    source = (project / "m.py").read_text()
    chosen = [(fault, ["tests/test_m.py"]) for fault in script.faults_in("m.py", source)]
    assert [fault.after for fault, _ in chosen] == ["pass", "(a <= 3)", "(2)", "(4)"]
    results, survivors = tmp_path / "results.json", tmp_path / "survivors.json"
    script.campaign(project, chosen[:2], results, 60)
    done = script.campaign(project, chosen, results, 60)
    assert "4 faults, 2 of them with a result" in capsys.readouterr().out
    assert [done[fault.key]["outcome"] for fault, _ in chosen] == ["failed", "passed", "passed", "passed"]
    assert (project / "m.py").read_text() == source
    assert sorted(path.name for path in project.rglob("*")) == ["m.py", "test_m.py", "tests"]
    alive = script.write_survivors(results, survivors)
    assert len(alive) == 3
    key = next(iter(alive))
    survivors.write_text(json.dumps({**alive, key: {**alive[key], "note": "changes nothing"}}))
    assert script.write_survivors(results, survivors)[key]["note"] == "changes nothing"
    script.campaign(project, chosen, results, 60)
    assert "4 of them with a result" in capsys.readouterr().out


def test_tests_that_fail_without_a_fault_stop_the_campaign(script, project, tmp_path):
    (project / "tests" / "test_m.py").write_text("def test_it():\n    assert False\n")
    chosen = [(fault, ["tests/test_m.py"]) for fault in script.faults_in("m.py", (project / "m.py").read_text())]
    with pytest.raises(SystemExit, match="mend them first"):
        script.campaign(project, chosen, tmp_path / "results.json", 60)


def test_an_endless_fault_is_late_and_ended(script, project, tmp_path):
    (project / "m.py").write_text("def judge(a):\n    while a < 3:\n        a += 1\n        break\n    return a\n")
    (project / "tests" / "test_m.py").write_text("from m import judge\n\n\ndef test_it():\n    assert judge(1) == 2\n")
    (fault,) = [
        fault
        for fault in script.faults_in(
            "m.py", "def judge(a):\n    while a < 3:\n        a += 1\n        break\n    return a\n"
        )
        if fault.kind == "constant" and fault.after == "(0)"
    ]
    with script.Copy(project) as copy:
        (copy.path / "m.py").write_text("while True:\n    pass\n")
        assert copy.run(["tests/test_m.py"], 3) == "late"
        with pytest.raises(ValueError), copy.changed(fault):
            raise ValueError
        assert (copy.path / "m.py").read_text() == "while True:\n    pass\n"
    assert not copy.path.exists()
