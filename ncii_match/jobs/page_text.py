"""Names and words on a page or in a message: without secrets, and such that none can pretend to be another."""

import shlex
from typing import Any

from ncii_match.jobs.file_systems import redact_secrets

LONGEST_NAME = 200
"""Characters of a row's id that are shown."""


def shown_name(value: Any) -> str:
    r"""An id without secrets, as text that cannot pretend to be another: a letter that does not print is its number.

    Examples
    --------
    >>> shown_name("a\u202egpj.exe")
    'a\\u{202e}gpj.exe'
    """
    text = redact_secrets(value if isinstance(value, str) else str(value))
    letters = (letter if letter.isprintable() else f"\\u{{{ord(letter):x}}}" for letter in text[:LONGEST_NAME])
    return "".join(letters) + "…" * (len(text) > LONGEST_NAME)


def shell_word(word: str) -> str:
    r"""A word of a command as bash takes it, whole, without secrets. What does not print is written as ``$'\xff'``."""
    word = redact_secrets(word)
    if word.isprintable():
        return shlex.quote(word)
    return (
        "$'"
        + "".join(_ESCAPES.get(letter, letter) if letter.isprintable() else _escape(letter) for letter in word)
        + "'"
    )


_ESCAPES = {"'": r"\'", "\\": r"\\"}


def _escape(letter: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in letter.encode("utf-8", "surrogateescape"))
