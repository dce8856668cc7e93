"""For ASGI servers: every picture in an upload is checked before the application sees a byte of it.

``CheckUploads(app, matcher)`` stands around any ASGI application (FastAPI, Starlette, Django, Quart, Litestar) on an
asyncio server. docs/upload-pipelines.md shows it at work and says what it answers.
Needs the extra ``asgi``.
"""

import json
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass
from enum import Enum
from logging import getLogger
from typing import Any, Literal

from ncii_match.adapters.asgi_body import (
    SNIFFED,
    Body,
    GoneError,
    Message,
    Receive,
    Section,
    Spool,
    TooLargeError,
    looks_like_picture,
)
from ncii_match.adapters.asgi_multipart import (
    EncodedError,
    MalformedError,
    Multipart,
    PartSpan,
    TooManyPartsError,
    boundary_of,
    media_type,
)
from ncii_match.decisions import Decision
from ncii_match.decode.limits import DecodeLimits
from ncii_match.errors import InputError
from ncii_match.matcher import Matcher
from ncii_match.outcomes import Action, Outcome, Status

_log = getLogger(__name__)

Scope = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Files = Literal["all", "pictures"]

MAX_BODY = DecodeLimits().max_bytes
"""Bytes of a body that may have to be checked, unless told otherwise: as many as one picture may have."""


class Refusal(Enum):
    """Why the application does not get to see a request: HTTP status, and a sentence for whoever sent it."""

    BLOCKED = (422, "A picture in this upload is not accepted.")
    UNKNOWN = (503, "A picture in this upload could not be checked. Send it again later.")
    TOO_LARGE = (413, "The upload is larger than allowed.")
    TOO_MANY_PARTS = (413, "The upload has more parts than allowed.")
    MALFORMED = (400, "The upload is not multipart as it should be.")
    ENCODED = (415, "Uploads with an encoding, or with a multipart within a multipart, are not accepted.")

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.value[0]

    @property
    def sentence(self) -> str:
        """For a person; it says nothing about the bank."""
        return self.value[1]


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a form, or a body that is no form.

    Attributes
    ----------
    name, filename : str or None
        As the client says, not to be relied on; None where it does not.
    content_type : str
        As the client says; empty where it does not.
    size : int
        Bytes.
    decision : Decision or None
        None when the content is not taken for a picture (``CheckUploads``), so it was not checked.
    """

    name: str | None
    filename: str | None
    content_type: str
    size: int
    decision: Decision | None


@dataclass(frozen=True, slots=True)
class Upload:
    """What ``scope["ncii_match"]`` holds.

    Attributes
    ----------
    parts : tuple of Part
        In order.
    refusal : Refusal or None
        Why they go no further, if so.
    """

    parts: tuple[Part, ...] = ()
    refusal: Refusal | None = None

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """Those of the pictures, in order."""
        return tuple(part.decision for part in self.parts if part.decision is not None)

    @property
    def action(self) -> Action:
        """The strongest of the decisions' actions; ALLOW where there is no picture."""
        return max((decision.action for decision in self.decisions), default=Action.ALLOW)


class Problems:
    """The answers to refused requests: RFC 9457 problems in JSON. An ASGI application; others may take its place.

    Nothing about cases, entries and distances is in an answer: who may ask often could learn a bank from it.

    Parameters
    ----------
    blocked : int
        HTTP status for ``Refusal.BLOCKED``, such as 451.
    retry_after : int
        Seconds, for ``Refusal.UNKNOWN``.
    """

    def __init__(self, *, blocked: int = Refusal.BLOCKED.status, retry_after: int = 5) -> None:
        self.blocked, self.retry_after = blocked, retry_after

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Answer by ``scope["ncii_match"].refusal``."""
        refusal: Refusal = scope["ncii_match"].refusal
        status = self.blocked if refusal is Refusal.BLOCKED else refusal.status
        problem = {"type": "about:blank", "status": status, "title": refusal.sentence, "code": refusal.name.lower()}
        body = json.dumps(problem).encode()
        headers = [(b"content-type", b"application/problem+json"), (b"content-length", str(len(body)).encode())]
        if refusal is Refusal.UNKNOWN:
            headers.append((b"retry-after", str(self.retry_after).encode()))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


_PROBLEMS = Problems()


class CheckUploads:
    """ASGI middleware that checks the pictures in requests before the application gets them.

    Bodies are looked at by content: multipart of any kind part by part, others as a whole when they are taken for a
    picture. Bodies of other content pass through as they come. Not looked into: websockets, pictures within other files
    (ZIP, PDF, video) or written as text (JSON, base64).

    Whatever goes wrong while checking is answered 503 and logged; the application does not get the request.

    Parameters
    ----------
    app : ASGI application
        It sees the very bytes that were sent, and the decisions in ``scope["ncii_match"]``, an ``Upload``. It must act
        on what is for REVIEW: that passes.
    matcher : Matcher
        Checks the pictures, one of a request after the other, those of several requests in its threads.
    max_body : int
        Bytes of a body that may have to be checked, inclusive; by default as many as ``DecodeLimits`` allows a picture,
        128 MiB.
    max_parts, max_pictures : int
        Of one request, inclusive.
    in_memory : int
        Bytes of a body beyond which it is kept in a file without a name (in ``$TMPDIR``) while it is checked. Only the
        pictures that are being decoded are in memory, ``matcher.workers`` of them.
    files : {"all", "pictures"}
        What is taken for a picture, besides all that begins like one whatever name or type it has. ``all``: whatever is
        sent as a file (a part with a file name, or a part or body of type ``image/*``, ``application/octet-stream`` or,
        for bodies, none); what is no picture is UNREADABLE then, and the policy's ``on_unreadable`` follows.
        ``pictures``: what is of type ``image/*``; other files pass with no decision.
    refuse_unknown : bool
        What follows from UNKNOWN where the policy says REVIEW. True: 503, and the client may come again. False: the
        upload passes on like others for review. Where the policy says BLOCK it is 503 in any case; where it says ALLOW,
        it passes.
    refuse : ASGI application
        Answers refused requests.

    Raises
    ------
    InputError
        For bounds below 1 or an unknown ``files``.
    """

    def __init__(
        self,
        app: App,
        matcher: Matcher,
        *,
        max_body: int = MAX_BODY,
        max_parts: int = 1000,
        max_pictures: int = 100,
        in_memory: int = 1024 * 1024,
        files: Files = "all",
        refuse_unknown: bool = True,
        refuse: App = _PROBLEMS,
    ) -> None:
        bounds = {"max_body": max_body, "max_parts": max_parts, "max_pictures": max_pictures, "in_memory": in_memory}
        for name, value in bounds.items():
            if value < 1:
                raise InputError(f"{name} is {value}; it must be at least 1")
        if files not in ("all", "pictures"):
            raise InputError(f"files is {files!r}; choose 'all' or 'pictures'")
        self.app, self.matcher, self.refuse = app, matcher, refuse
        self.max_body, self.max_parts, self.max_pictures, self.in_memory = max_body, max_parts, max_pictures, in_memory
        self.files, self.refuse_unknown = files, refuse_unknown

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection; only ``http`` is looked at."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = _headers(scope)
        body = Body(receive, headers, Spool(self.in_memory), self.max_body)
        try:
            try:
                upload = await self._inspect(headers, body)
            except GoneError:
                raise
            except Exception:  # noqa: BLE001
                # Whatever goes wrong, the application does not get what was not checked.
                _log.exception("an upload could not be checked, and is refused")
                upload = Upload(refusal=Refusal.UNKNOWN)
            if upload.refusal is not None:
                await body.discard()
        except GoneError:
            return
        scope = {**scope, "ncii_match": upload}
        if upload.refusal is None:
            await self.app(scope, body.replay(), send)
        else:
            await self.refuse(scope, receive, send if body.ended else _closing(scope, send))

    async def _inspect(self, headers: dict[str, list[str]], body: Body) -> Upload:
        """Read as much of the body as must be looked at, and check it."""
        types, encodings = headers.get("content-type", []), headers.get("content-encoding", [])
        kind, is_form = media_type("".join(types)), "multipart/" in "".join(types).lower()
        try:
            if is_form or kind.startswith("image/"):
                body.check_length()  # before the client is asked for it
            if not await body.begin():
                return Upload()
            if any(encoding.strip().lower() not in ("", "identity") for encoding in encodings):
                raise EncodedError
            if len(types) > 1:
                raise MalformedError
            if is_form:
                multipart = Multipart(boundary_of(types[0]), self.max_parts)
                multipart.feed(body.head)
                await body.read_all(multipart.feed)
                spans: Sequence[PartSpan] = multipart.finish(body.spool)
            elif self._is_picture(kind, body.head, is_file=not types):
                await body.read_all()
                spans = [PartSpan({"content-type": kind}, 0, len(body.spool))]
            else:
                return Upload()
            return await self._check(spans, body.spool, whole=not is_form)
        except MalformedError:
            refusal = Refusal.MALFORMED
        except EncodedError:
            refusal = Refusal.ENCODED
        except TooManyPartsError:
            refusal = Refusal.TOO_MANY_PARTS
        except TooLargeError:
            refusal = Refusal.TOO_LARGE
        return Upload(refusal=refusal)

    def _is_picture(self, content_type: str, head: bytes, *, is_file: bool) -> bool:
        """Whether a content is taken for one. An empty one holds no picture, whatever it is called."""
        if not head:
            return False
        if looks_like_picture(head) or content_type.startswith("image/"):
            return True
        return self.files == "all" and (is_file or content_type == "application/octet-stream")

    async def _check(self, spans: Sequence[PartSpan], spool: Spool, *, whole: bool) -> Upload:
        heads = [spool.read(span.offset, min(span.length, SNIFFED)) for span in spans]
        are_pictures = [
            self._is_picture(span.content_type, head, is_file=whole or span.is_named_file)
            for span, head in zip(spans, heads, strict=True)
        ]
        if sum(are_pictures) > self.max_pictures:
            raise TooManyPartsError
        parts, refusal = [], None
        for span, is_picture in zip(spans, are_pictures, strict=True):
            decision = await self.matcher.acheck(Section(spool, span.offset, span.length)) if is_picture else None
            parts.append(Part(*span.disposition, span.content_type, span.length, decision))
            if refusal is not Refusal.BLOCKED and decision is not None:
                refusal = self._refusal(decision) or refusal
        return Upload(tuple(parts), refusal)

    def _refusal(self, decision: Decision) -> Refusal | None:
        if decision.status is Status.CANNOT_READ:  # the spool, not the picture
            return Refusal.UNKNOWN
        if decision.outcome is Outcome.UNKNOWN:
            refused = decision.action is Action.BLOCK or (decision.action is Action.REVIEW and self.refuse_unknown)
            return Refusal.UNKNOWN if refused else None
        return Refusal.BLOCKED if decision.action is Action.BLOCK else None


def _headers(scope: Scope) -> dict[str, list[str]]:
    """Values by lower-case name."""
    headers: dict[str, list[str]] = {}
    for name, value in scope["headers"]:
        headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
    return headers


def _closing(scope: Scope, send: Send) -> Send:
    """A ``send`` that ends an HTTP/1 connection on which the rest of a body may still come."""

    async def closing(message: Message) -> None:
        if message["type"] == "http.response.start" and str(scope.get("http_version", "1.1")).startswith("1"):
            message = {**message, "headers": [*message.get("headers", []), (b"connection", b"close")]}
        await send(message)

    return closing
