"""Processes of their own for ``test_swaps``: one that publishes, and readers that say when a picture stops to match.

python tests/swap_processes.py write BANK                            reads turns from stdin, publishes each
python tests/swap_processes.py read BANK ISOLATION FOLLOW HOW FILE…  "ready", then for each file when it ceased to match
"""

import os
import sys
import time
from pathlib import Path

import numpy as np

from ncii_match import Bank, Hashes, Matcher, Outcome
from ncii_match.values import PDQ

QUERIES = 8
"""Hashes that are looked up; in each snapshot every one of them has one entry, of the turn that it was made in."""

APART = 20
"""Distances that turns give in turn; the entries of the turn before are further away than that by chance."""


def queries():
    """The hashes that are looked up: uint8 [QUERIES, 32], half of the bits set."""
    rng = np.random.default_rng(7)
    return np.packbits(np.argsort(rng.random((QUERIES, 256)), axis=1) < 128, axis=1)


def apart(turn, query):
    """Bits between a query and the entry that the turn's snapshot has for it."""
    return 1 + (turn + 3 * query) % APART


def entries(turn):
    """The entries of a turn: so many bits of each query turned over, from a place that moves with the turn."""
    bits = np.unpackbits(queries(), axis=1)
    for query, row in enumerate(bits):
        places = (np.arange(apart(turn, query)) * 11 + turn) % 256
        row[places] ^= 1
    return Hashes(PDQ, np.packbits(bits, axis=1))


def case_of(turn):
    return f"turn-{turn}"


def change(bank, turn):
    """One change and its publication: the turn's entries in place of those of the turn before."""
    if turn > 1:
        bank.withdraw(case=case_of(turn - 1), reason="the next turn")
    bank.add(entries(turn), case=case_of(turn), source="test", state="confirmed" if turn % 2 else "seed")
    return bank.publish(full=turn % 10 == 0).number


def say(*words):
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def write(place):
    with Bank.open(place) as bank:
        say("ready")
        for line in sys.stdin:
            say(change(bank, int(line)))


def read(place, isolation, follow, how, files):
    matcher = Matcher(place, isolation=isolation, follow=follow)
    if how == "fork":  # the snapshot comes from before the fork; threads and worker processes do not
        matcher.check(files[0])
        if (child := os.fork()) != 0:
            os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    pictures = [Path(file).read_bytes() for file in files]
    if [matcher.check(one).outcome for one in pictures] != [Outcome.MATCH] * len(pictures):
        sys.exit("a picture does not match to begin with")
    say("ready")
    for picture in pictures:
        last = time.monotonic()
        while True:
            begun = time.monotonic()
            outcome = matcher.check(picture).outcome
            if outcome is not Outcome.MATCH:
                break
            last = begun
            time.sleep(0.002)
        say(outcome.name, last, time.monotonic())
    matcher.close()
    os._exit(0)


if __name__ == "__main__":
    if sys.argv[1] == "write":
        write(sys.argv[2])
    else:
        read(*sys.argv[2:6], sys.argv[6:])
