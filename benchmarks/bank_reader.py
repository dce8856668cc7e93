"""A reader in a process of its own: looks one hash up again and again, and says when the answer changes.

python benchmarks/bank_reader.py BANK HEX     "ready", then the time at which it no longer matches
"""

import sys
import time

from ncii_match import PDQ, Hashes, Matcher, Outcome


def main() -> None:
    bank_directory, text = sys.argv[1:]
    hashes = Hashes.from_hex([text], PDQ)
    with Matcher(bank_directory) as matcher:
        if matcher.lookup(hashes)[0].outcome is not Outcome.MATCH:
            sys.exit("the hash does not match to begin with")
        print("ready", flush=True)
        while (outcome := matcher.lookup(hashes)[0].outcome) is Outcome.MATCH:
            time.sleep(0.001)
        print(time.time() if outcome is Outcome.NO_MATCH else outcome.name, flush=True)


if __name__ == "__main__":
    main()
