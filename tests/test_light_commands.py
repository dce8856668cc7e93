"""What a command of the bank loads: nothing that it does not use, so that it answers at once."""

import json
import subprocess
import sys
import threading

import pytest
from conftest import ROOT

from ncii_match import Bank, Hashes
from ncii_match.bank.snapshots.snapshot import IndexOnDemand
from ncii_match.errors import BankCorruptError

NOT_NEEDED = ("numba", "llvmlite", "faiss", "pyarrow", "alembic", "PIL", "scipy", "jinja2", "cryptography", "ijson")
"""Compiled search, file formats, pictures, changes of the tables."""

SCRIPT = """
import json, sys
from ncii_match.cli.main import run
sys.argv[0] = "ncii-match"
try:
    run()
finally:
    print("LOADED", json.dumps(sorted(sys.modules)))
"""


@pytest.fixture
def bank_dir(tmp_path):
    with Bank.create(tmp_path / "bank") as bank:
        bank.add(Hashes.from_hex(["f" * 32 + "0" * 32, "0f" * 32]), case="R-1", source="own", force=True)
        bank.publish()
        return bank.path


def loaded_modules(*arguments):
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    text, _, modules = result.stdout.rpartition("LOADED ")
    return text, set(json.loads(modules))


@pytest.mark.parametrize(
    ("command", "options"),
    [("list", ()), ("show", ("1",)), ("withdraw", ("--case", "R-1", "--entry", "1", "--reason", "a mistake"))],
)
def test_a_light_command_loads_no_search_and_no_file_format(command, options, bank_dir):
    text, modules = loaded_modules("bank", command, bank_dir, *options)
    assert "R-1" in text or command == "withdraw"
    assert not {name for name in modules if name.partition(".")[0] in NOT_NEEDED}
    unused = ("ncii_match.kernels", "ncii_match.bank.transfer", "sqlalchemy.dialects.postgresql")
    assert not {name for name in modules if name.startswith(unused)}


def test_a_withdrawal_without_the_search_is_what_readers_see(bank_dir):
    loaded_modules("bank", "withdraw", bank_dir, "--case", "R-1", "--entry", "1", "--reason", "a mistake")
    with Bank.open(bank_dir) as bank:
        assert bank.is_published
        snapshot = bank.ensure_published()
    assert len(snapshot) == len(snapshot.index) == 1
    found = snapshot.index.search(Hashes.from_hex(["f" * 32 + "0" * 32, "0f" * 32]), 0)
    assert found.entry_ids.tolist() == [2]


def test_a_published_snapshot_opens_its_index_when_it_is_asked_for(bank_dir):
    with Bank.open(bank_dir) as bank:
        snapshot = bank.ensure_published()
    header = next(bank_dir.glob("bases/*/index/header.json"))
    header.write_text("{}")
    with pytest.raises(BankCorruptError, match="publish again"):
        _ = snapshot.index


def test_an_open_index_takes_no_lock():
    """A process that is forked while another thread looks at the index must not wait for that thread."""
    opened = []
    index = IndexOnDemand(lambda: opened.append(1) or "index")
    assert index.get() == "index"
    with index._opening:
        thread = threading.Thread(target=index.get, daemon=True)
        thread.start()
        thread.join(30)
        assert not thread.is_alive()
    assert opened == [1]


READER = """
import json, sys
from pathlib import Path
from ncii_match.bank.snapshots.following import Follower
from ncii_match.bank.snapshots.snapshot import ReadOptions, Snapshot
from ncii_match.bank.snapshots.storage import LocalStorage
snapshot = Snapshot.open_from(LocalStorage(Path(sys.argv[1])), ReadOptions(opens_index=False))
print(json.dumps([len(snapshot), snapshot.holds_of(1)[0][0].reference, sorted(sys.modules)]))
"""


def test_a_reader_loads_no_database_and_before_a_search_no_kernel(bank_dir):
    result = subprocess.run(
        [sys.executable, "-c", READER, bank_dir], cwd=ROOT, capture_output=True, text=True, check=True, timeout=120
    )
    entries, case, modules = json.loads(result.stdout)
    assert (entries, case) == (2, "R-1")
    assert not {name for name in modules if name.partition(".")[0] in (*NOT_NEEDED, "sqlalchemy", "sqlite3")}
    unused = ("ncii_match.kernels", "ncii_match.index.engines", "ncii_match.bank.truth.tables")
    assert not {name for name in modules if name.startswith(unused)}
