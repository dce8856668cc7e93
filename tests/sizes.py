"""How much the long tests do: enough to find a slip in the plain suite, all of it with ``pytest --all``."""

import os

ALL = "NCII_MATCH_TEST_ALL"
"""Environment variable that ``--all`` sets, so that worker processes see it as well."""


def does_all() -> bool:
    """Whether the long tests do everything."""
    return os.environ.get(ALL) == "1"


def size(name: str, *, quick: int, everything: int) -> int:
    """How many of something a test does: what ``NCII_MATCH_TEST_<name>`` says, else by ``--all``."""
    named = os.environ.get(f"NCII_MATCH_TEST_{name}")
    if named is not None:
        return int(named)
    return everything if does_all() else quick
