"""The list of what an import did not take."""

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Self

from ncii_match.errors import InputError
from ncii_match.files import private


class Rejects:
    """A file of ``line,reason``, private, without any hash. It is made with its first line."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[str] | None = None
        self._writer: Any = None

    @property
    def shown(self) -> str | None:
        """Its name, when there is anything in it."""
        return None if self._file is None else str(self._path)

    @contextmanager
    def opened(self) -> Iterator[Self]:
        """Itself, closed in the end. Raises InputError when its last lines cannot be written."""
        try:
            yield self
        finally:
            if self._file is not None:
                with self._explained():
                    self._file.close()

    def note(self, line: int, reason: str) -> None:
        """One line that was not taken. Raises InputError when the file cannot be written."""
        with self._explained():
            if self._file is None:
                self._file = io.TextIOWrapper(private.overwrite(self._path), encoding="utf-8", newline="")
                self._writer = csv.writer(self._file, lineterminator="\n")
                self._writer.writerow(["line", "reason"])
            self._writer.writerow([line, reason])

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InputError(
                f"{self._path} cannot be written: {error.strerror}; name another place (rejects=…, --rejects)"
            ) from None
