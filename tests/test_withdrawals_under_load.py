"""Four processes withdraw, add, publish, compact, rekey and are killed; three readers look. Small here.

``NCII_MATCH_TEST_WITHDRAWALS=100`` makes a hundred of them, in a bank of a thousand times as many entries;
``python tests/withdrawals_under_load.py`` measures as well.
"""

import json
import os
import subprocess
import sys

import pytest
import withdrawals_under_load as script
from conftest import ROOT

WITHDRAWALS = int(os.environ.get("NCII_MATCH_TEST_WITHDRAWALS", "12"))
ENTRIES = 1000 * WITHDRAWALS if "NCII_MATCH_TEST_WITHDRAWALS" in os.environ else 1000
PATIENCE = 10.0
"""Seconds after which a reader in the background has looked, on any machine."""


@pytest.mark.parametrize("seed", [1] if WITHDRAWALS > 20 else [1, 2])
def test_what_was_withdrawn_stops_matching_for_every_reader_and_never_comes_back(seed):
    options = ["--entries", ENTRIES, "--withdrawals", WITHDRAWALS, "--kill-every", 0.7, "--seed", seed, "--json"]
    command = [sys.executable, ROOT / "tests" / "withdrawals_under_load.py", *map(str, options)]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    result = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=3600, env={**os.environ, "PYTHONPATH": path}
    )
    assert result.stdout, result.stderr
    report = json.loads(result.stdout)
    assert report["wrong"] == []
    assert report["told"]["withdraw"] == WITHDRAWALS
    assert min(report["told"][what] for what in ("add", "publish", "compact", "rekey")) >= 1
    assert report["matched_after"]["check"] == 0  # each check that begins after the acknowledgement
    assert report["matched_after"]["anew"] == 0
    assert report["most"]["background"] < PATIENCE
    assert set(report["most"]) == set(script.READERS)
