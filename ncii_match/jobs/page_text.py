"""Names and words on a page or in a message: without secrets, and such that none can pretend to be another."""

import shlex
from typing import Any

from ncii_match.jobs.file_systems import redact_secrets

LONGEST_NAME = 200
"""Characters of a row's id that are shown."""


def shown_name(value: Any) -> str:
    """An id without secrets as text that cannot pretend to be another: what does not print is its number."""
    text = redact_secrets(value if isinstance(value, str) else str(value))
    told = "".join(one if one.isprintable() else f"\\u{{{ord(one):x}}}" for one in text[:LONGEST_NAME])
    return told + "…" * (len(text) > LONGEST_NAME)


def shell_word(word: str) -> str:
    r"""A word of a command as bash takes it, whole, without secrets; what does not print is written as ``$'\xff'``."""
    word = redact_secrets(word)
    if word.isprintable():
        return shlex.quote(word)
    return "$'" + "".join(_PLAIN.get(one, one) if one.isprintable() else _bytes_of(one) for one in word) + "'"


_PLAIN = {"'": r"\'", "\\": r"\\"}


def _bytes_of(one: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in one.encode("utf-8", "surrogateescape"))
