"""Where the parts of a multipart body are, for a reader that must miss none.

``python_multipart`` reads the parts. Its word is not enough: the application behind may use another parser, and what
that one would see as a part of its own must have been seen here. So a body that two parsers could read differently is
refused. Delimiters are counted once more, as plain bytes: each must be one that the parser took for one, with nothing
before the first, and nothing but a line break after the last.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from ncii_match.adapters.asgi_body import Spool
from ncii_match.errors import MissingExtraError

try:
    from python_multipart.exceptions import FormParserError
    from python_multipart.multipart import MultipartParser, parse_options_header
except ModuleNotFoundError as error:
    raise MissingExtraError("CheckUploads needs python-multipart", "asgi") from error

_BOUNDARY = re.compile(
    rb"""\s*multipart/[\w.+-]+
    (?:\s*;\s*(?!boundary)[\w-]+=(?:"[^"\\]*"|[^\s;,"\\]+))*
    \s*;\s*boundary=(?:"(?P<quoted>[\w'()+,./:=? -]{0,69}[\w'()+,./:=?-])"|(?P<bare>[\w'+.-]{1,70}))
    (?:\s*;\s*(?!boundary)[\w-]+=(?:"[^"\\]*"|[^\s;,"\\]+))*
    \s*;?\s*""",
    re.ASCII | re.IGNORECASE | re.VERBOSE,
)
"""One boundary (RFC 2046, 5.1.1) among other parameters, none of which makes two readers disagree."""

_FILENAME = re.compile(r"filename[*\d]*\s*=", re.ASCII | re.IGNORECASE)
_PLAIN_ENCODINGS = ("", "7bit", "8bit", "binary", "identity")


class MalformedError(ValueError):
    """A body that is no multipart, or that two parsers could read differently."""


class EncodedError(ValueError):
    """A content that is encoded, or a multipart within a multipart: it would have to be undone to be looked at."""


class TooManyPartsError(ValueError):
    """More parts than allowed."""


@dataclass(slots=True)
class PartSpan:
    """Where a part is.

    Attributes
    ----------
    headers : dict
        By lower-case name.
    offset, length : int
        Of its content, in bytes of the body.
    """

    headers: dict[str, str] = field(default_factory=dict)
    offset: int = 0
    length: int = 0

    @property
    def content_type(self) -> str:
        """As the client says, in lower case and without parameters; empty when it does not."""
        return media_type(self.headers.get("content-type", ""))

    @property
    def disposition(self) -> tuple[str | None, str | None]:
        """Name of the field, and of the file, as the client says."""
        _, options = parse_options_header(self.headers.get("content-disposition"))
        name, filename = options.get(b"name"), options.get(b"filename")
        return (
            None if name is None else name.decode("utf-8", "replace"),
            None if filename is None else filename.decode("utf-8", "replace"),
        )

    @property
    def is_named_file(self) -> bool:
        """Whether anything could take it for a file with a name (``filename``, ``filename*``)."""
        return bool(_FILENAME.search(self.headers.get("content-disposition", "")))


def media_type(header: str) -> str:
    """``image/png`` of ``Image/PNG; charset=x``."""
    return header.partition(";")[0].strip().lower()


def boundary_of(content_type: str) -> bytes:
    """The boundary that a Content-Type names. Raises MalformedError when it names none, or not as it should."""
    boundary = _BOUNDARY.fullmatch(content_type.encode("latin-1", "replace"))
    if boundary is None:
        raise MalformedError("The Content-Type does not name one boundary as RFC 2046 wants it.")
    return boundary["quoted"] or boundary["bare"]


class Multipart:
    """Follows a multipart body while it is written to a spool.

    Raises MalformedError, EncodedError and TooManyPartsError as soon as that is known.
    """

    def __init__(self, boundary: bytes, most: int) -> None:
        self._delimiter, self._most = b"--" + boundary, most
        self._parts: list[PartSpan] = []
        self._header: list[bytes] = [b"", b""]
        self._ended = False
        self._delimiters: list[int] = []
        self._tail, self._seen = b"", 0
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_part_data": self._data,
                "on_header_begin": self._begin_header,
                "on_header_field": self._name,
                "on_header_value": self._value,
                "on_header_end": self._end_header,
                "on_headers_finished": self._end_headers,
                "on_end": self._end,
            },
        )

    def feed(self, chunk: bytes) -> None:
        """The next bytes of the body."""
        try:
            self._parser.write(chunk)
        except FormParserError:
            raise MalformedError("The body is not a multipart as RFC 2046 wants it.") from None
        window = self._tail + chunk
        start, at = self._seen - len(self._tail), window.find(self._delimiter)
        while at >= 0:
            self._delimiters.append(start + at)
            if len(self._delimiters) > len(self._parts) + 2:  # one more may stand at the end of this chunk
                raise MalformedError("The boundary is part of a content.")
            at = window.find(self._delimiter, at + len(self._delimiter))
        self._seen += len(chunk)
        keep = max(0, len(window) - len(self._delimiter) + 1)
        if self._delimiters:
            keep = max(keep, self._delimiters[-1] + len(self._delimiter) - start)
        self._tail = window[keep:]

    def finish(self, spool: Spool) -> Sequence[PartSpan]:
        """The parts in order, when the whole body is in the spool."""
        marks, size = self._delimiters, len(self._delimiter)
        if not self._ended or len(marks) != len(self._parts) + 1 or marks[0] != 0:
            raise MalformedError("The body does not begin and end with a delimiter, or has one more within a content.")
        if spool.read(marks[-1] + size, 5) not in (b"--", b"--\r\n"):
            raise MalformedError("Something follows the last delimiter.")
        for part, begin, end in zip(self._parts, marks, marks[1:], strict=False):
            part.offset = end - 2 - part.length
            if spool.read(begin + size, 2) != b"\r\n":  # spaces, which some parsers take for a part of the boundary
                raise MalformedError("A delimiter does not stand on a line of its own.")
            if part.offset < begin + size or spool.read(part.offset - 4, 4) != b"\r\n\r\n":
                raise MalformedError("A part has no end of its headers.")
        return self._parts

    def _begin(self) -> None:
        if len(self._parts) == self._most:
            raise TooManyPartsError(f"More than {self._most} parts.")
        self._parts.append(PartSpan())

    def _data(self, _data: bytes, start: int, end: int) -> None:
        self._parts[-1].length += end - start

    def _begin_header(self) -> None:
        self._header = [b"", b""]

    def _name(self, data: bytes, start: int, end: int) -> None:
        self._header[0] += data[start:end]

    def _value(self, data: bytes, start: int, end: int) -> None:
        self._header[1] += data[start:end]

    def _end_header(self) -> None:
        name, value = (text.decode("latin-1") for text in self._header)
        name = name.lower()
        if name in self._parts[-1].headers:
            raise MalformedError("A part has two headers with one name.")
        if any(letter in value for letter in "\r\n\0"):
            raise MalformedError("A header of a part has a line break in it.")
        self._parts[-1].headers[name] = value.strip(" \t")

    def _end_headers(self) -> None:
        headers = self._parts[-1].headers
        if not headers:  # some parsers look for them behind the blank line then
            raise MalformedError("A part has no headers.")
        encodings = [headers.get(f"content-{which}encoding", "").lower() for which in ("transfer-", "")]
        if any(encoding not in _PLAIN_ENCODINGS for encoding in encodings):
            raise EncodedError("A part is encoded.")
        if "multipart/" in headers.get("content-type", "").lower():
            raise EncodedError("A part is a multipart itself.")

    def _end(self) -> None:
        self._ended = True
